// Reads ServiceMonitors from standard input, a JSON array, and says of each what the operator's own schema has against it;
// kubernetes-validate knows only what Kubernetes itself brings. Usage: node servicemonitor.mjs NODE_MODULES
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const at = `${process.argv[2]}/@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor.js`;
const { ServiceMonitor } = await import(pathToFileURL(at));

const monitors = JSON.parse(readFileSync(0, "utf8"));
if (monitors.length === 0) throw new Error("there is no ServiceMonitor");
for (const monitor of monitors) new ServiceMonitor(monitor).validate();

//! The tests of the whole, in one binary: in paused time over in-memory connections wherever the test is not about
//! sockets, processes or the command line.
#![expect(unreachable_pub, reason = "a test binary has no public interface")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

// The gateway in one process with the simulated upstream.
mod harness;

// The program in a process of its own.
mod program;
// Several of them, and a Redis between them.
mod town;
// Certificates, and who signs them.
#[path = "../../src/server/authority.rs"]
mod authority;

// A lookup's answer: bytes, order, scope, headers.
mod lookup;
// Large answers, compressed for callers who accept that.
mod compression;
// The error table: every row that a lookup can reach.
mod refusals;
// How deep and how much: what is too much is an answer, and not memory.
mod limits;
// Whatever the upstream turns out to be, answers are right.
mod unknowns;
// Random lookups give exactly what asking the upstream key by key gives.
mod model;
// Coalescing, merging, saturation, stalls.
mod queue;
// The upstream fails, and comes back.
mod faults;
// Whose credential goes upstream, and who finds whose cache.
mod credentials;
// Callers with a token.
mod clients;
// Callers that leave.
mod cancellation;
// The invariants of dispatch, in thousands of random schedules.
mod simulation;
// Where several gateways meet, as a model.
mod meeting;
// The invariants of dispatch with several gateways.
mod several;
// Passing through, beside lookups.
mod passthrough;
// Requests that two servers could read in two ways.
mod smuggling;
// What passes through and is limited: a pace of its own.
mod passthrough_limit;
// Writes that pass through, and what is cached of what they change.
mod writes;
// Customers who are fetched before anybody asks.
mod warmup;
// What operators see.
mod admin;
// The status page, and the figures behind it.
mod page;
// Free rides and idle slots: what is read stays fresh without a request of its own.
mod rides;
// Stale answers, outages, and newer versions of a customer.
mod freshness;
// Other lookup paths: the one that is built in, and one that is made up.
mod shapes;
// Customers who are erased.
mod purge;
// Customers of whom the upstream says that they have changed.
mod events;
// The questions that `probe` asks of each kind of upstream.
mod probe;
// Draining.
mod shutdown;
// The program as a process, over real sockets.
mod process;
// A gateway in front of another gateway, as two processes.
mod relay;
// What the program writes of its work, and where a caller's trace goes.
mod logs;
// Several gateways with one slot and one queue, in a real Redis.
mod replicas;
// The winner of a slot, killed at each step of its work.
mod winners;
// Redis away, under load.
mod outage;
// A Redis that wants TLS, a user and a password.
mod guarded;
// The configuration, read again while the program runs.
mod reload;
// What survives a restart, and a kill.
mod shared_store;
mod store;
// The program over TLS and HTTP/2.
mod tls;
// Slow clients and large bodies, over real sockets: who keeps it waiting is gone, and memory stays.
mod attack;
// Requests and answers full of what must be seen nowhere.
mod canary;
// Nothing personal in what the program writes.
mod privacy;
// What the API's description says is what the code says.
mod openapi;
// Nothing personal in what its types print.
mod discretion;
// What the house looks like: imports go down, lists in the README mirror the code.
mod house;

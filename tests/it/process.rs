//! The program as a process, over real sockets: arguments, exit statuses, signals, the demo.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use audience_gateway::{
    config::Config,
    dispatch::MixedLists,
    simulator::{self, Simulator},
};
use http::Method;
use tokio::{net::TcpStream, task::JoinSet};

use crate::program::{Desk, Program, by_id, customer, get, lookup, send, serve, simulate, until};

#[tokio::test]
async fn check_prints_the_configuration_as_toml_and_opens_nothing() {
    let desk = Desk::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let text = format!("server.listen = \"{listen}\"\nupstream.base_url = \"http://127.0.0.1:1/api/open\"");
    let path = desk.write("mine.toml", &text);
    let path = path.to_str().unwrap();
    let environment = [("GATEWAY_CACHE__TTL", "5m"), ("GATEWAY_CONFIG", path)];
    for arguments in [&["check", "--config", path][..], &["check"]] {
        let (status, stdout, stderr) = Program::start_with(&desk, "check", arguments, &environment).finished().await;
        assert_eq!((status, &*stderr), (Some(0), ""), "{stdout}");
        let printed: toml::Table = stdout.parse().expect("TOML");
        assert_eq!(printed["cache"]["ttl"].as_str(), Some("5m"));
        assert_eq!(printed["server"]["listen"].as_str(), Some(&*listen.to_string()));
        let again = Config::parse(&stdout, std::iter::empty()).expect("what was printed is a configuration");
        assert_eq!(again.to_toml(), stdout);
    }
}

#[tokio::test]
async fn without_being_told_otherwise_the_configuration_is_the_shipped_one() {
    let desk = Desk::new();
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/gateway.toml")).unwrap();
    std::fs::create_dir(desk.0.path().join("config")).unwrap();
    desk.write("config/gateway.toml", &shipped);
    let (status, stdout, stderr) = Program::start(&desk, "check", &["check"]).finished().await;
    assert_eq!((status, &*stderr), (Some(0), ""));
    assert!(stdout.contains("https://integrate.rabbitpre.com/api/open"), "{stdout}");
}

#[tokio::test]
async fn help_and_version_are_answers_and_no_errors() {
    let desk = Desk::new();
    for (arguments, word) in [
        (&["--help"][..], "simulate"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["simulate", "--help"], "--fault"),
    ] {
        let (status, stdout, stderr) = Program::start(&desk, "help", arguments).finished().await;
        assert_eq!((status, &*stderr), (Some(0), ""), "{arguments:?}");
        assert!(stdout.contains(word), "{stdout}");
    }
}

#[tokio::test]
async fn bad_arguments_end_it_with_64_and_one_line() {
    let desk = Desk::new();
    let rows: [(&[&str], &str); 10] = [
        (&[], "--help"),
        (&["fly"], "fly"),
        (&["serve", "--port", "1"], "--port"),
        (&["serve", "--config"], "--config"),
        (&["check", "mine.toml"], "mine.toml"),
        (&["simulate", "--interval", "soon"], "--interval"),
        (&["simulate", "--listen", "nowhere"], "--listen"),
        (&["demo", "--now"], "--now"),
        (&["probe", "--keys", "phone=13"], "--keys"),
        (&["probe", "--key"], "--key"),
    ];
    for (arguments, word) in rows {
        let (status, stdout, stderr) = Program::start(&desk, "bad", arguments).finished().await;
        assert_eq!((status, &*stdout), (Some(64), ""), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with("audience-gateway: ") && stderr.contains(word), "{stderr}");
    }
}

#[tokio::test]
async fn a_bad_configuration_ends_it_with_64_and_a_line_for_each_problem_before_any_socket_is_opened() {
    let desk = Desk::new();
    // If it came to opening sockets, this one would be the problem.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "[server]\nlisten = \"{}\"\nmax_body = \"hunter2\"\n[cache]\ntll = \"1m\"\n[[lookup]]\ninterval = \"0s\"\n\
         [replicas]\nkind = \"redis\"\nurl = \"redis://:hunter2@host\"\n",
        taken.local_addr().unwrap()
    );
    let path = desk.write("bad.toml", &text);
    let keys = [
        "server.max_body",
        "upstream.base_url",
        "lookup[0].interval",
        "cache.tll",
        "replicas.url",
        "GATEWAY_LOG__LEVEL",
    ];
    for command in ["serve", "check"] {
        let arguments = [command, "--config", path.to_str().unwrap()];
        let environment = [("GATEWAY_LOG__LEVEL", "hunter2")];
        let (status, stdout, stderr) = Program::start_with(&desk, command, &arguments, &environment).finished().await;
        assert_eq!((status, &*stdout), (Some(64), ""), "{stderr}");
        for key in keys {
            let of_key = stderr.lines().filter(|line| line.starts_with(&format!("audience-gateway: {key}: "))).count();
            assert_eq!(of_key, 1, "{key} in\n{stderr}");
        }
        assert_eq!(stderr.lines().count(), keys.len(), "{stderr}");
        assert!(!stderr.contains("hunter2"), "a value is quoted: {stderr}");
    }
}

#[tokio::test]
async fn a_configuration_that_is_not_there_or_no_toml_ends_it_with_64_and_its_name() {
    let desk = Desk::new();
    desk.write("broken.toml", "[upstream\nbase_url = \"hunter2\"\n");
    for (file, place) in [("missing.toml", "missing.toml"), ("broken.toml", "broken.toml")] {
        let (status, stdout, stderr) = Program::start(&desk, "serve", &["serve", "--config", file]).finished().await;
        assert_eq!((status, &*stdout), (Some(64), ""));
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(place) && !stderr.contains("hunter2"), "{stderr}");
    }
}

#[tokio::test]
async fn a_port_in_use_ends_it_with_1_and_its_address() {
    let desk = Desk::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["listen", "admin_listen"] {
        let other = if key == "listen" { "admin_listen" } else { "listen" };
        let text = format!(
            "upstream.base_url = \"http://127.0.0.1:1\"\nlog.level = \"error\"\n\
             [server]\n{key} = \"{address}\"\n{other} = \"127.0.0.1:0\"\n"
        );
        let path = desk.write("taken.toml", &text);
        let arguments = ["serve", "--config", path.to_str().unwrap()];
        let (status, stdout, stderr) = Program::start(&desk, "serve", &arguments).finished().await;
        assert_eq!((status, &*stdout), (Some(1), ""), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(&address), "{stderr}");
    }
    let (status, _, stderr) = Program::start(&desk, "simulate", &["simulate", "--listen", &address]).finished().await;
    assert_eq!((status, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains(&address), "{stderr}");
}

#[tokio::test]
async fn a_lookup_over_real_sockets_is_fetched_once_and_then_a_hit() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &[]).await;
    let (mut gateway, callers, operators) = serve(&desk, &desk.config(upstream, "")).await;
    assert_eq!(get(operators, "/readyz").await.status, 200);
    let first = lookup(callers, &by_id(2)).await;
    let expected = Simulator::new(simulator::Config::default()).expected(
        "",
        "",
        "audienceUserIdList",
        &customer(2).id.to_string(),
    );
    assert_eq!(first.records(), expected);
    assert!(first.header("cache-status").starts_with("audience-gateway; fwd=miss"), "{:?}", first.headers);
    let second = lookup(callers, &by_id(2)).await;
    assert_eq!(second.body, first.body);
    assert!(second.header("cache-status").starts_with("audience-gateway; hit"), "{:?}", second.headers);
    assert_eq!(get(callers, "/echo").await.json()["path"], "/api/open/echo");
    gateway.signal("INT");
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn on_sigterm_and_ctrl_c_a_waiting_caller_is_answered_and_it_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let desk = Desk::new();
        let (mut simulator, upstream) = simulate(&desk, &["--latency", "2s"]).await;
        let (mut gateway, callers, operators) = serve(&desk, &desk.config(upstream, "")).await;
        let mut waiting = JoinSet::new();
        waiting.spawn(async move { lookup(callers, &by_id(2)).await });
        until("the lookup to be under way", async || {
            let status = get(operators, "/status.json").await.json();
            (status["lookups"][0]["upstream"]["in_flight"] == 1).then_some(())
        })
        .await;
        gateway.signal(signal);
        until("readyz to say that it drains", async || (get(operators, "/readyz").await.status == 503).then_some(()))
            .await;
        until("no new connection to be taken", async || {
            let refused = TcpStream::connect(callers).await.map_err(|error| error.kind()).err();
            (refused == Some(std::io::ErrorKind::ConnectionRefused)).then_some(())
        })
        .await;
        let reply = waiting.join_next().await.unwrap().unwrap();
        assert_eq!(reply.records().len(), 1);
        assert_eq!(gateway.exit().await.code(), Some(0), "{}", gateway.stderr());
        simulator.signal(signal);
        assert_eq!(simulator.exit().await.code(), Some(0));
    }
}

#[tokio::test]
async fn the_demo_needs_nothing_and_does_what_it_says() {
    for address in ["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:9090"] {
        let free = TcpListener::bind(address).map(drop);
        assert!(free.is_ok(), "the demo listens on {address}, which another program on this machine has taken");
    }
    let desk = Desk::new();
    let mut demo = Program::start(&desk, "demo", &["demo"]);
    let printed = until("the demo to say what to try", async || {
        let printed = demo.stdout();
        printed.contains("Ctrl-C").then_some(printed)
    })
    .await;
    let [gateway, upstream, admin]: [SocketAddr; 3] =
        ["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:9090"].map(|address| address.parse().unwrap());
    let bodies: Vec<&str> = printed
        .lines()
        .filter(|line| line.trim_start().starts_with("curl -si 127.0.0.1:8080/api/audience/detail --json '"))
        .filter_map(|line| line.split('\'').nth(1))
        .collect();
    let [by_id, by_third_id] = bodies[..] else { panic!("{printed}") };

    let first = lookup(gateway, by_id).await;
    assert_eq!(first.records().len(), 1);
    assert!(first.header("cache-status").contains("; fwd=miss;"), "{:?}", first.headers);
    for body in [by_id, by_third_id] {
        let reply = lookup(gateway, body).await;
        assert_eq!(reply.body, first.body);
        assert!(reply.header("cache-status").contains("; hit;"), "{:?}", reply.headers);
    }
    let path = "/api/open/api/audience/detail";
    let direct =
        [send(upstream, Method::POST, path, by_id, &[]).await, send(upstream, Method::POST, path, by_id, &[]).await];
    assert!(direct[1].text().contains("操作频繁"), "the upstream refuses the second in a second: {}", direct[1].text());
    assert_eq!(get(admin, "/status.json").await.json()["phase"], "ready");
    assert!(get(admin, "/metrics").await.text().lines().any(|line| line.starts_with("gateway_")));
    demo.signal("INT");
    assert_eq!(demo.exit().await.code(), Some(0));
}

#[tokio::test]
async fn probe_prints_settings_to_be_pasted_and_never_a_key_or_a_token() {
    let desk = Desk::new();
    let (_simulator, upstream) = simulate(&desk, &["--interval", "100ms", "--require-token"]).await;
    let path = desk.config(upstream, "[[lookup]]\ninterval = \"110ms\"");
    let [id, third_id, phone] = [2, 5, 13].map(customer).map(|c| (c.id, c.third_id.unwrap(), c.phones[0].clone()));
    let [id, third_id, phone] = [id.0.to_string(), third_id.1, phone.2];
    let keys = [format!("audienceUserId={id}"), format!("thirdId={third_id}"), format!("phone={phone}")];
    let mut arguments = vec!["probe", "--config", path.to_str().unwrap()];
    arguments.extend(keys.iter().flat_map(|key| ["--key", key]));
    let environment = [("GATEWAY_PROBE_TOKEN", "token-of-alice")];

    let (status, stdout, stderr) = Program::start_with(&desk, "probe", &arguments, &environment).finished().await;
    assert_eq!((status, &*stderr), (Some(0), ""), "{stdout}");
    let pasted = format!("upstream.base_url = \"http://{upstream}\"\n{stdout}");
    let config = Config::parse(&pasted, std::iter::empty()).unwrap_or_else(|problems| panic!("{problems}\n{stdout}"));
    assert_eq!(config.lookups[0].dispatch.interval, Duration::from_millis(110));
    assert_eq!(config.lookups[0].dispatch.mixed_lists, MixedLists::Union, "{stdout}");

    let json = [&*arguments, &["--json"]].concat();
    let json = Program::start_with(&desk, "probe", &json, &environment).finished().await;
    let told: serde_json::Value = serde_json::from_str(&json.1).expect("JSON");
    assert_eq!((json.0, &told["settings"]["mixed_lists"]), (Some(0), &"union".into()));

    let untaken = Program::start(&desk, "probe", &arguments).finished().await;
    assert_eq!((untaken.0, untaken.2.lines().count()), (Some(1), 1), "{}", untaken.2);
    assert!(untaken.2.contains("100200"), "{}", untaken.2);
    let stray = [&*arguments, &["--token", "token-of-alice", &phone, "--key", &phone]].concat();
    let stray = Program::start(&desk, "probe", &stray).finished().await;
    assert_eq!((stray.0, &*stray.1, stray.2.lines().count()), (Some(64), "", 1), "{}", stray.2);
    let printed = [stdout, json.1, untaken.1, untaken.2, stray.2].concat();
    for secret in [&*id, &third_id, &phone, "token-of-"] {
        assert!(!printed.contains(secret), "{secret} is in\n{printed}");
    }
}

#[tokio::test]
async fn probe_names_bad_arguments_with_64_and_an_upstream_that_is_not_there_with_1() {
    let desk = Desk::new();
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let path = desk.config(nowhere, "[[lookup]]\ninterval = \"10ms\"");
    let probe = ["probe", "--config", path.to_str().unwrap()];
    let rows: [(&[&str], &str); 7] = [
        (&[], "--key"),
        (&["--key", "fax=1"], "`fax`"),
        (&["--key", "747"], "KIND=VALUE"),
        (&["--key", "phone=13", "--path", "/nowhere"], "--path"),
        (&["--key", "phone=13", "--fastest", "-1s"], "--fastest"),
        (&["--key", "phone=13", "--token", "cookie=x"], "forward_headers"),
        (&["--key", "phone=13", "--body-field", "companyId=x"], "--body-field"),
    ];
    for (arguments, word) in rows {
        let arguments = [&probe, arguments].concat();
        let (status, stdout, stderr) = Program::start(&desk, "probe", &arguments).finished().await;
        assert_eq!((status, &*stdout, stderr.lines().count()), (Some(64), "", 1), "{arguments:?}: {stderr}");
        assert!(stderr.contains(word), "{stderr}");
    }
    let arguments = [&probe[..], &["--key", "phone=13"]].concat();
    let (status, stdout, stderr) = Program::start(&desk, "probe", &arguments).finished().await;
    assert_eq!((status, &*stdout, stderr.lines().count()), (Some(1), "", 1), "{stderr}");
    assert!(stderr.contains("cannot be reached") && stderr.contains("refused"), "{stderr}");
}

#[tokio::test]
async fn probe_stops_on_ctrl_c_and_tells_what_it_has() {
    let desk = Desk::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = desk.config(listener.local_addr().unwrap(), "");
    let simulator = Simulator::new(simulator::Config::default());
    let mut serving = JoinSet::new();
    serving.spawn(simulator.clone().serve(listener, std::future::pending()));
    let keys = [2, 5, 7].map(|index| format!("audienceUserId={}", customer(index).id));
    let mut arguments = vec!["probe", "--config", path.to_str().unwrap()];
    arguments.extend(keys.iter().flat_map(|key| ["--key", key]));
    let mut probe = Program::start(&desk, "probe", &arguments);
    // By then it has the answer to the first, and three more to ask, a second apart.
    until("the second question", async || (simulator.lookups().len() == 2).then_some(())).await;
    probe.signal("INT");
    assert_eq!(probe.exit().await.code(), Some(0), "{}", probe.stderr());
    assert!(probe.stdout().contains("1 record, with the key as it was asked"), "{}", probe.stdout());
    assert!(probe.stdout().contains("it was stopped"), "{}", probe.stdout());
    assert!(simulator.lookups().len() <= 3);
}

#[tokio::test]
async fn health_ends_with_0_while_the_gateway_is_ready_and_with_1_when_it_is_not_there() {
    let desk = Desk::new();
    let (_upstream, address) = simulate(&desk, &[]).await;
    let config = desk.config(address, "");
    let (mut gateway, _callers, operators) = serve(&desk, &config).await;
    let told = operators.to_string();
    let environment = [("GATEWAY_SERVER__ADMIN_LISTEN", &*told)];
    for arguments in [&["health"][..], &["health", "--live"]] {
        let finished = Program::start_with(&desk, "health", arguments, &environment).finished().await;
        assert_eq!(finished, (Some(0), String::new(), String::new()), "{arguments:?}");
    }
    // By the file, of which nothing else counts.
    let broken = desk.write("broken.toml", &format!("server.admin_listen = \"{told}\"\ncache.ttl = \"nonsense\"\n"));
    let finished = Program::start(&desk, "health", &["health", "--config", broken.to_str().unwrap()]).finished().await;
    assert_eq!(finished, (Some(0), String::new(), String::new()));

    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    let (status, stdout, stderr) = Program::start_with(&desk, "health", &["health"], &environment).finished().await;
    assert_eq!((status, &*stdout, stderr.lines().count()), (Some(1), "", 1), "{stderr}");
    assert!(stderr.starts_with(&format!("audience-gateway: /readyz of {told}: ")), "{stderr}");
    let (status, _stdout, stderr) =
        Program::start(&desk, "health", &["health", "--config", config.to_str().unwrap()]).finished().await;
    assert_eq!((status, stderr.lines().count()), (Some(64), 1), "port 0 cannot be asked: {stderr}");
}

#[tokio::test]
async fn health_ends_with_1_while_the_gateway_drains_though_it_is_alive() {
    let desk = Desk::new();
    let (_upstream, address) = simulate(&desk, &["--latency", "3s"]).await;
    let (mut gateway, callers, operators) = serve(&desk, &desk.config(address, "")).await;
    let told = operators.to_string();
    let environment = [("GATEWAY_SERVER__ADMIN_LISTEN", &*told)];
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { lookup(callers, &by_id(2)).await });
    until("the lookup to be under way", async || {
        get(operators, "/status.json").await.text().contains("\"in_flight\":1").then_some(())
    })
    .await;
    gateway.signal("TERM");
    until("the gateway to drain", async || gateway.stderr().contains("draining").then_some(())).await;
    let (status, _stdout, stderr) = Program::start_with(&desk, "ready", &["health"], &environment).finished().await;
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("answers 503"), "{stderr}");
    let (status, ..) = Program::start_with(&desk, "live", &["health", "--live"], &environment).finished().await;
    assert_eq!(status, Some(0));
    assert_eq!(waiting.join_next().await.unwrap().unwrap().status, 200);
    assert!(gateway.exit().await.success());
}

//! What of a request arrives upstream, and which requests do.

use super::*;

fn header(said: &serde_json::Value, name: &str) -> Vec<String> {
    let lines = said["headers"].as_array().expect("a list").iter();
    lines.filter(|line| line[0] == name).map(|line| line[1].as_str().expect("text").to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_request_arrives_as_it_was_but_for_what_concerns_the_connection() {
    let fixture = Fixture::new();
    let answer = fixture
        .ask(
            "PUT /echo/A%20b;p=1/?q=%20%2F&q=2 HTTP/1.1\r\nhost: gateway:8080\r\nX-Token: secret\r\nconnection: close, x-private\r\n\
             x-private: 1\r\nupgrade: websocket\r\nproxy-authorization: Basic eA==\r\nx-forwarded-for: 10.0.0.1\r\n\
             content-type: text/plain\r\ncontent-length: 5\r\n\r\nhello",
        )
        .await;
    assert_eq!(status(&answer), "200");
    let said = echoed(&answer);
    assert_eq!(said["method"], "PUT");
    assert_eq!(said["path"], "/api/open/echo/A%20b;p=1/");
    assert_eq!(said["query"], "q=%20%2F&q=2");
    assert_eq!(said["body"], "hello");
    assert_eq!(header(&said, "host"), ["upstream:8081"]);
    assert_eq!(header(&said, "content-length"), ["5"]);
    assert_eq!(header(&said, "content-type"), ["text/plain"]);
    assert_eq!(header(&said, "x-token"), ["secret"]);
    assert_eq!(header(&said, "via"), ["1.1 audience-gateway"]);
    assert_eq!(header(&said, "x-forwarded-for"), ["10.0.0.1"]);
    assert_eq!(header(&said, "x-forwarded-host"), ["gateway:8080"]);
    assert_eq!(header(&said, "forwarded"), [r#"for=unknown;host="gateway:8080";proto=http"#]);
    for gone in ["connection", "x-private", "upgrade", "proxy-authorization", "transfer-encoding"] {
        assert_eq!(header(&said, gone), [""; 0], "{gone}");
    }
    assert_eq!(fixture.counted("200"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_base_path_may_be_given_or_left_out() {
    let fixture = Fixture::new();
    for (given, arrives) in [
        ("/echo/x", "/api/open/echo/x"),
        ("/api/open/echo/x", "/api/open/echo/x"),
        ("/API/Open//echo/./y/../x/", "/api/open/echo/x/"),
        ("http://elsewhere/echo/x", "/api/open/echo/x"),
    ] {
        let said = echoed(&fixture.get(given).await);
        assert_eq!(said["path"], arrives);
        assert_eq!(said["query"], serde_json::Value::Null);
        assert_eq!(header(&said, "host"), ["upstream:8081"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_expects_100_is_told_to_go_on() {
    let fixture = Fixture::new();
    let mut caller = fixture.connect().await;
    let head =
        "POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 2\r\n\r\n";
    caller.write_all(head.as_bytes()).await.expect("open");
    assert_eq!(status(&read_head(&mut caller).await), "100");
    caller.write_all(b"hi").await.expect("open");
    let said = echoed(&read_all(&mut caller).await);
    assert_eq!(said["body"], "hi");
    assert_eq!(header(&said, "expect"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_get_may_have_a_body_of_unknown_length() {
    let fixture = Fixture::new();
    let request =
        "GET /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let said = echoed(&fixture.ask(request).await);
    assert_eq!(said["body"], "hi");
    assert_eq!(header(&said, "transfer-encoding"), ["chunked"]);
}

#[tokio::test(start_paused = true)]
async fn an_old_caller_is_served_in_its_version() {
    let fixture = Fixture::new();
    let answer = fixture.ask("GET /echo HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    assert_eq!(header(&echoed(&answer), "via"), ["1.0 audience-gateway"]);
}

#[tokio::test(start_paused = true)]
async fn trailers_pass_in_both_directions() {
    let (sender, mut arrived) = tokio::sync::mpsc::channel(1);
    let fixture = Fixture::scripted(move |mut io| {
        let sender = sender.clone();
        async move {
            let mut request = read_head(&mut io).await;
            while !request.ends_with("0\r\nx-sum: 1\r\n\r\n") {
                request.push(char::from(io.read_u8().await.expect("trailers")));
            }
            sender.send(request).await.expect("the test waits");
            let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n2\r\nok\r\n0\r\nx-end: 2\r\n\r\n";
            io.write_all(answer.as_bytes()).await.expect("open");
        }
    });
    let request = "POST /x HTTP/1.1\r\nhost: x\r\nconnection: close, te\r\nte: trailers\r\ntrailer: x-sum\r\n\
                   transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n";
    let answer = fixture.ask(request).await;
    assert!(answer.ends_with("\r\n2\r\nok\r\n0\r\nx-end: 2\r\n\r\n"), "{answer}");
    let request = arrived.recv().await.expect("a request");
    assert!(request.contains("\r\nte: trailers\r\n") && request.contains("\r\ntrailer: x-sum\r\n"), "{request}");
}

#[tokio::test(start_paused = true)]
async fn a_token_call_is_asked_for_uncompressed_because_its_answer_is_read() {
    let (sender, mut arrived) = tokio::sync::mpsc::channel(1);
    let fixture = Fixture::scripted(move |mut io| {
        let sender = sender.clone();
        async move {
            sender.send(read_head(&mut io).await).await.expect("the test waits");
            io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.expect("open");
        }
    });
    for (path, is_kept) in [("/app/getOrgAccessToken", false), ("/app/other", true)] {
        let head = format!("GET {path}?instanceAppid=a HTTP/1.1\r\nhost: x\r\nconnection: close");
        fixture.ask(&format!("{head}\r\naccept-encoding: gzip\r\n\r\n")).await;
        assert_eq!(arrived.recv().await.expect("a request").contains("accept-encoding"), is_kept, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_options_that_may_go_no_further_is_answered_here() {
    let fixture = Fixture::new();
    let ask = async |hops: &str| {
        let head = "OPTIONS /echo HTTP/1.1\r\nhost: x\r\nconnection: close";
        fixture.ask(&format!("{head}\r\nmax-forwards: {hops}\r\n\r\n")).await
    };
    let answer = ask("0").await;
    assert!(status(&answer) == "200" && answer.contains("\r\nallow: GET, ") && !answer.contains("x-echo"), "{answer}");
    assert!(ask("3").await.contains(r#"["max-forwards","2"]"#));
}

#[tokio::test(start_paused = true)]
async fn only_what_is_allowed_passes() {
    let allow = ["/ECHO/x/", "/bytes"].map(ToOwned::to_owned).to_vec();
    let fixture = Fixture::with(&Config { allow: allow.clone(), ..everything() }, Some(simulated()));
    for path in ["/echo/x", "/api/open/echo/%78/y", "/Echo//x/", "/bytes?n=1", "/slow/../bytes"] {
        assert_eq!(status(&fixture.get(path).await), "200", "{path}");
    }
    for path in ["/echo", "/echo/xy", "/echo/x/../y", "/slow", "/", "/api/open"] {
        let answer = fixture.get(path).await;
        assert_eq!(status(&answer), "404", "{path}");
        assert_eq!(echoed(&answer)["errorCode"], "NOT_FOUND");
    }
    assert_eq!((fixture.counted("200"), fixture.counted("404")), (5, 6));

    let fixture = Fixture::with(&Config { enabled: false, allow, ..everything() }, Some(simulated()));
    assert_eq!(status(&fixture.get("/echo/x").await), "404");
}

#[tokio::test(start_paused = true)]
async fn a_connect_is_not_found_and_a_trace_passes() {
    let client =
        Client::new(upstream_config(), Arc::new(Wire { upstream: Some(simulated()), tasks: Mutex::default() }));
    let metrics = Metrics::new();
    let passthrough = Passthrough::new(&everything(), (client, TIMEOUTS), metrics.passthrough(), cached(&metrics));
    for (method, status) in [(http::Method::CONNECT, 404), (http::Method::TRACE, 200)] {
        let mut request = Request::new(http_body_util::Empty::new());
        *request.method_mut() = method;
        let path = Path::normalise("/echo", BASE).expect("safe");
        assert_eq!(passthrough.handle(request, path).await.status(), status);
    }
}

//! What one might use instead, set up to be as quick as it can be: one worker, caches in memory, no access log.

use std::{fs, net::SocketAddr, path::Path};

use crate::{
    reply::Protocol,
    server::{Server, free_port, on_core_0},
};

/// nginx, which keeps the answer to each body, in files on a file system in memory.
pub(crate) fn nginx(upstream: SocketAddr, desk: &Path) -> Server {
    let port = free_port();
    let desk = desk.join("nginx");
    fs::create_dir(&desk).unwrap();
    let home = desk.display();
    let config = format!(
        r#"daemon off; worker_processes 1; user root; pid {home}/pid; error_log {home}/error.txt;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nodelay on;
  keepalive_timeout 1h; keepalive_requests 1000000000; client_body_buffer_size 64k; client_body_in_single_buffer on;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  proxy_cache_path {home}/cache levels=1:2 keys_zone=all:64m max_size=8g inactive=1d use_temp_path=off;
  upstream behind {{ server {upstream}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffers 16 64k; proxy_buffer_size 64k;
      proxy_cache all; proxy_cache_methods POST; proxy_cache_key $request_body; proxy_cache_valid 200 1d;
      add_header X-Cache $upstream_cache_status;
    }}
  }}
}}
"#
    );
    let file = desk.join("nginx.conf");
    fs::write(&file, config).unwrap();
    let mut command = on_core_0("nginx", true);
    command.arg("-p").arg(&desk).arg("-e").arg(desk.join("error.txt")).arg("-c").arg(file);
    Server::start("nginx", port, command, &desk)
}

/// Varnish, which keeps the answer to each body, in its own memory.
pub(crate) fn varnish(upstream: SocketAddr, desk: &Path) -> Server {
    let port = free_port();
    let desk = desk.join("varnish");
    fs::create_dir(&desk).unwrap();
    let (host, behind) = (upstream.ip(), upstream.port());
    let program = format!(
        r#"vcl 4.1;
import std;
import bodyaccess;
backend default {{ .host = "{host}"; .port = "{behind}"; }}
sub vcl_recv {{
  if (!std.cache_req_body(1MB)) {{ return (synth(413)); }}
  set req.http.x-method = req.method;
  unset req.http.cookie;
  return (hash);
}}
sub vcl_hash {{ bodyaccess.hash_req_body(); return (lookup); }}
sub vcl_backend_fetch {{ set bereq.method = bereq.http.x-method; }}
sub vcl_backend_response {{ set beresp.ttl = 1d; return (deliver); }}
"#
    );
    let file = desk.join("bench.vcl");
    fs::write(&file, program).unwrap();
    let mut command = on_core_0("varnishd", true);
    command.args(["-F", "-a", &format!("127.0.0.1:{port}"), "-T", "none", "-s", "malloc,8G", "-j", "none"]);
    command.args(["-p", "timeout_idle=3600", "-p", "thread_pools=1", "-p", "thread_pool_min=200"]);
    command.arg("-n").arg(desk.join("home")).arg("-f").arg(file);
    Server::start("varnish", port, command, &desk)
}

/// Redis, asked for the same records one by one: what callers would have who keep them there themselves.
pub(crate) fn redis(desk: &Path) -> Server {
    let port = free_port();
    let mut command = on_core_0("redis-server", true);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let mut redis = Server::start("redis", port, command, desk);
    redis.protocol = Protocol::Redis;
    redis
}

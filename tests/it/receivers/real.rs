//! Receivers of others, pinned, as `tests/receivers` installs them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::servers::{Leashed, free_port};

/// What all of them answer.
const REFUSAL: &str = r#"{"permission": "deny", "stop_reason": "closed today"}"#;

/// A kind of receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Uvicorn,
    GunicornSync,
    GunicornThreads,
    Node,
    Express,
    Fastify,
    Apache,
    Nginx,
    Puma,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Uvicorn,
        Self::GunicornSync,
        Self::GunicornThreads,
        Self::Node,
        Self::Express,
        Self::Fastify,
        Self::Apache,
        Self::Nginx,
        Self::Puma,
    ];

    /// Seconds after which it closes an idle connection where nothing else is said.
    pub(super) const fn usual(self) -> u64 {
        match self {
            Self::GunicornSync | Self::GunicornThreads => 2,
            Self::Uvicorn | Self::Apache | Self::Node | Self::Express => 5,
            Self::Puma => 20,
            Self::Fastify => 72,
            Self::Nginx => 75,
        }
    }

    /// The file without which it is not there.
    fn needs(self, installed: &Path) -> PathBuf {
        installed.join(match self {
            Self::Uvicorn => "python/bin/uvicorn",
            Self::GunicornSync | Self::GunicornThreads => "python/bin/gunicorn",
            Self::Node => return PathBuf::from("/usr/bin/env"), // node itself is asked below
            Self::Express => "node/node_modules/express/package.json",
            Self::Fastify => "node/node_modules/fastify/package.json",
            Self::Apache => "root/usr/sbin/apache2",
            Self::Nginx => "root/usr/sbin/nginx",
            Self::Puma => "root/usr/bin/puma",
        })
    }

    pub(super) fn is_installed(self, installed: &Path) -> bool {
        let is_there = self.needs(installed).exists();
        let is_node = matches!(self, Self::Node | Self::Express | Self::Fastify);
        is_there
            && (!is_node
                || Command::new("node").arg("--version").stdout(Stdio::null()).status().is_ok_and(|it| it.success()))
    }
}

/// A receiver that runs.
pub(super) struct Real {
    pub(super) port: u16,
    _process: Leashed,
    _folder: TempDir,
}

/// Where `tests/receivers` has put them, and what it says of those that cannot be had here.
pub(super) fn install() -> (PathBuf, String) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = Command::new(top.join("tests/receivers")).status().unwrap();
    assert!(installed.success(), "tests/receivers has failed");
    let folder = top.join("target/receivers");
    let left_out = fs::read_to_string(folder.join("left-out")).unwrap();
    (folder, left_out)
}

impl Real {
    /// Starts one that closes idle connections after so many seconds.
    pub(super) async fn start(kind: Kind, installed: &Path, seconds: u64) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut command = command(kind, installed, folder.path(), port, seconds);
        let log = folder.path().join("log");
        let file = fs::File::create(&log).unwrap();
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let process = Leashed::start(&mut command);
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(60), "{kind:?} does not start:\n{said}");
            sleep(Duration::from_millis(50)).await;
        }
        Self { port, _process: process, _folder: folder }
    }
}

fn command(kind: Kind, installed: &Path, folder: &Path, port: u16, seconds: u64) -> Command {
    let write = |name: &str, text: &str| fs::write(folder.join(name), text.replace("REFUSAL", REFUSAL)).unwrap();
    match kind {
        Kind::Uvicorn => {
            write("app.py", ASGI);
            let mut command = Command::new(installed.join("python/bin/uvicorn"));
            command.args(["app:app", "--log-level", "warning", "--timeout-keep-alive", &seconds.to_string()]);
            command.args(["--port", &port.to_string()]);
            command
        }
        Kind::GunicornSync | Kind::GunicornThreads => {
            write("app.py", FLASK);
            let mut command = Command::new(installed.join("python/bin/gunicorn"));
            let class = if kind == Kind::GunicornSync { "sync" } else { "gthread" };
            command.args(["app:app", "--worker-class", class, "--keep-alive", &seconds.to_string()]);
            command.args(["--bind", &format!("127.0.0.1:{port}")]);
            command.args(if kind == Kind::GunicornThreads { ["--threads", "32"] } else { ["--workers", "4"] });
            command
        }
        Kind::Node | Kind::Express | Kind::Fastify => {
            let scripts = [(Kind::Node, NODE), (Kind::Express, EXPRESS), (Kind::Fastify, FASTIFY)];
            let script = scripts.into_iter().find(|(of, _)| *of == kind).unwrap().1;
            write("app.js", script);
            let mut command = Command::new("node");
            command.args(["app.js", &port.to_string(), &(seconds * 1000).to_string()]);
            command.env("NODE_PATH", installed.join("node/node_modules"));
            command
        }
        Kind::Apache => {
            write("answer.json", "REFUSAL");
            fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap(); // root's Apache serves as somebody else
            let modules = installed.join("root/usr/lib/apache2/modules");
            let (modules, folder_name) = (modules.to_str().unwrap(), folder.to_str().unwrap());
            let text =
                APACHE.replace("MODULES", modules).replace("FOLDER", folder_name).replace("PORT", &port.to_string());
            write("apache.conf", &text.replace("SECONDS", &seconds.to_string()));
            let mut command = within(installed, "usr/sbin/apache2");
            command.args(["-D", "FOREGROUND", "-f"]).arg(folder.join("apache.conf"));
            command
        }
        Kind::Nginx => {
            let text = NGINX.replace("PORT", &port.to_string()).replace("SECONDS", &seconds.to_string());
            write("nginx.conf", &text);
            let mut command = within(installed, "usr/sbin/nginx");
            command.args(["-e", "stderr", "-c"]).arg(folder.join("nginx.conf")).arg("-p").arg(folder);
            command
        }
        Kind::Puma => {
            write("config.ru", RACK);
            write("puma.rb", &format!("persistent_timeout {seconds}\nthreads 16, 16\nbind 'tcp://127.0.0.1:{port}'\n"));
            let mut command = within(installed, "usr/bin/ruby");
            command.arg(installed.join("root/usr/bin/puma")).args(["-C", "puma.rb", "config.ru"]);
            command
        }
    }
}

/// A program of a Debian package that was unpacked and not installed.
fn within(installed: &Path, program: &str) -> Command {
    let root = installed.join("root");
    let folders = |folder: &Path| {
        let found = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        found.filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let is_of_machine = |path: &PathBuf| path.to_str().unwrap().ends_with("-linux-gnu");
    let libraries: Vec<PathBuf> = folders(&root.join("usr/lib")).into_iter().filter(is_of_machine).collect();
    let everywhere = libraries.iter().chain([&root.join("usr/lib")]).cloned().collect::<Vec<_>>();
    let ruby = everywhere.iter().flat_map(|library| folders(&library.join("ruby")));
    let gems = libraries.iter().flat_map(|library| folders(&library.join("rubygems-integration")));
    let gems = gems.chain([root.join("usr/share/rubygems-integration/all")]);
    let mut command = Command::new(root.join(program));
    command.env("LD_LIBRARY_PATH", std::env::join_paths(&libraries).unwrap());
    command.env("RUBYLIB", std::env::join_paths(ruby).unwrap());
    command.env("GEM_PATH", std::env::join_paths(gems).unwrap());
    command
}

const ASGI: &str = r#"
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b'REFUSAL'})
"#;

/// Like many, it does not look at the body.
const FLASK: &str = r#"
from flask import Flask, Response
app = Flask(__name__)

@app.post("/<path:path>")
def answer(path):
    return Response('REFUSAL', content_type="application/json")
"#;

const NODE: &str = r"
const server = require('http').createServer((request, response) => {
  request.resume();
  request.on('end', () => response.end('REFUSAL'));
});
server.keepAliveTimeout = Number(process.argv[3]);
server.listen(Number(process.argv[2]), '127.0.0.1');
";

const EXPRESS: &str = r"
const express = require('express');
const app = express();
app.use(express.json({ limit: '5mb' }));
app.use((request, response) => response.type('json').send('REFUSAL'));
app.listen(Number(process.argv[2]), '127.0.0.1').keepAliveTimeout = Number(process.argv[3]);
";

const FASTIFY: &str = r"
const app = require('fastify')({ keepAliveTimeout: Number(process.argv[3]) });
app.post('/*', async () => JSON.parse('REFUSAL'));
app.listen({ port: Number(process.argv[2]), host: '127.0.0.1' });
";

const APACHE: &str = r"
ServerName localhost
ServerRoot FOLDER
DefaultRuntimeDir FOLDER
PidFile FOLDER/pid
Listen 127.0.0.1:PORT
LoadModule mpm_event_module MODULES/mod_mpm_event.so
LoadModule authz_core_module MODULES/mod_authz_core.so
LoadModule alias_module MODULES/mod_alias.so
ErrorLog /dev/stderr
User daemon
Group daemon
KeepAliveTimeout SECONDS
AliasMatch ^/.* FOLDER/answer.json
<Directory />
  Require all granted
</Directory>
";

const NGINX: &str = r"
daemon off;
pid nginx.pid;
events {}
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_timeout SECONDS;
  default_type application/json;
  server {
    listen 127.0.0.1:PORT;
    location / { return 200 'REFUSAL'; }
  }
}
";

const RACK: &str = r#"
run ->(env) { env["rack.input"].read; [200, { "Content-Type" => "application/json" }, ['REFUSAL']] }
"#;

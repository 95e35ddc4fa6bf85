//! The table of settings. What a setting is called, what it is if nobody says otherwise and what it is for stands here
//! and nowhere else: the file, the names of variables and flags, `hookfleet settings` and the shipped file follow it.

/// One setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// From the top of the file: `worker.prefetch`.
    pub path: &'static str,
    pub kind: Kind,
    pub default: Fallback,
    /// What it is for. Lines fit behind the `#` of the shipped file.
    pub doc: &'static str,
}

/// The form of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A single value.
    One,
    /// A text that nobody may see.
    Secret,
    /// A URL whose password nobody may see.
    SecretUrl,
    /// One such URL, or a list of them.
    OneOrMoreSecretUrls,
    /// A list; in variables and flags with commas.
    List,
    /// A list of URLs whose passwords nobody may see.
    SecretUrls,
    /// A list of tokens with their roles, of which nobody may see more than the roles.
    Tokens,
}

impl Kind {
    /// Whether values may hold passwords or tokens.
    pub(super) const fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::SecretUrl | Self::OneOrMoreSecretUrls | Self::SecretUrls | Self::Tokens)
    }

    /// Whether there are many values.
    pub(super) const fn is_list(self) -> bool {
        matches!(self, Self::List | Self::SecretUrls | Self::Tokens)
    }
}

/// What holds if nobody says otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fallback {
    /// This value, written as in a variable.
    Is(&'static str),
    /// Nothing; this is what it could be.
    Unset { example: &'static str },
}

const fn one(path: &'static str, default: &'static str, doc: &'static str) -> Setting {
    Setting { path, kind: Kind::One, default: Fallback::Is(default), doc }
}

const fn list(path: &'static str, default: &'static str, doc: &'static str) -> Setting {
    Setting { path, kind: Kind::List, default: Fallback::Is(default), doc }
}

const fn secret(path: &'static str, doc: &'static str) -> Setting {
    Setting { path, kind: Kind::Secret, default: Fallback::Is(""), doc }
}

const fn secret_url(path: &'static str, example: &'static str, doc: &'static str) -> Setting {
    Setting { path, kind: Kind::SecretUrl, default: Fallback::Unset { example }, doc }
}

const fn secret_urls(path: &'static str, doc: &'static str) -> Setting {
    Setting { path, kind: Kind::SecretUrls, default: Fallback::Is(""), doc }
}

/// All settings; those of a section stand together.
pub(super) static SETTINGS: [Setting; 65] = [
    one(
        "namespace",
        "hookfleet",
        "First part of every queue, exchange and key name, so that two fleets can share a broker and a Redis.\n\
         1 to 40 of a-z 0-9 - _",
    ),
    one("hooks", "config/hooks.yaml", "What to run when: a file, or a folder of *.yaml. Edits count within a second."),
    one(
        "catalog.from",
        "file",
        "Where workers take their hooks from: file (the setting hooks, on each machine) or redis (one catalog for the\n\
         whole fleet, which `hookfleet hooks apply` changes).",
    ),
    one(
        "catalog.dialect",
        "native",
        "Whose words hooks files are in: native, or kheish for a hooks.json of Kheish, which is followed as it is.",
    ),
    one(
        "catalog.cache",
        "",
        "With redis: a file in which a worker keeps the last good catalog, so that it can start while Redis is away.",
    ),
    one(
        "catalog.max_age",
        "24h",
        "How long ago Redis may have confirmed what is in catalog.cache for a worker to start with it.",
    ),
    Setting {
        path: "broker.url",
        kind: Kind::OneOrMoreSecretUrls,
        default: Fallback::Unset { example: "amqp://guest:guest@127.0.0.1:5672/%2f" },
        doc: "The message broker, and with it redis.url. Without both, everything is kept in the file embedded.path.\n\
              Of a cluster, a list of all nodes: a connection starts at a random one and tries the others in turn.\n\
              amqps:// for TLS; with ?auth_mechanism=external the client certificate is the login.",
    },
    one(
        "broker.password_file",
        "",
        "A file with the password, in place of the one in broker.url. Read again at each connect.",
    ),
    one(
        "broker.tls_ca",
        "",
        "For amqps:// and a management API over https://: a file with the authorities (PEM) to trust in place of the\n\
         public ones. Files of TLS are read again at each connect.",
    ),
    one(
        "broker.tls_cert",
        "",
        "The client's certificate chain (a PEM file), if the broker asks for one, and broker.tls_key.",
    ),
    one("broker.tls_key", "", "Its private key (a PEM file)."),
    one(
        "broker.tls_name",
        "",
        "The name that the broker's certificate has to have, if it is not the host of broker.url.",
    ),
    secret_url(
        "broker.management_url",
        "http://guest:guest@127.0.0.1:15672",
        "The management API, for `hookfleet topology`: if it is not on port 15672 of the hosts of broker.url (15671\n\
         with TLS), or takes another user.",
    ),
    secret_url(
        "redis.url",
        "redis://127.0.0.1:6379/0",
        "The store of claims: redis://user:password@host:port/database, rediss:// with TLS. For a Redis Cluster, a node of\n\
         it; with redis.sentinels, the name of the primary in place of host and port.",
    ),
    one(
        "redis.password_file",
        "",
        "A file with the password, in place of one in redis.url. Read again for every new connection.",
    ),
    secret_urls(
        "redis.sentinels",
        "The sentinels that know the primary: [redis://sentinel-1:26379, ...], with users and passwords of their own.",
    ),
    one("redis.cluster", "false", "redis.url names a node of a Redis Cluster."),
    list("redis.nodes", "", "More nodes of the cluster, in case that one is down: [redis-2:6379, redis-3:6379]."),
    one("redis.tls_ca", "", "For rediss://: a file with the authorities (PEM) to trust in place of the public ones."),
    one("redis.tls_cert", "", "The client's certificate chain (a PEM file), if Redis asks for one, and redis.tls_key."),
    one("redis.tls_key", "", "The private key of redis.tls_cert (a PEM file)."),
    one(
        "redis.when_away",
        "hold",
        "While the store of claims is away: hold (nothing runs twice, work waits) or proceed (what is no replay runs\n\
         without a claim, unless its hook's timeout is over 20m; redeliveries may run twice).",
    ),
    one(
        "embedded.path",
        "data/hookfleet.db",
        "Broker and claims of a single process without servers: one SQLite file.",
    ),
    one(
        "http.bind",
        "127.0.0.1:8733",
        "Address of /metrics, /healthz, /readyz and /v1/status; in `up` and `server` of events, gates, hooks and letters\n\
         too. One that others can reach needs tokens.",
    ),
    one(
        "http.expose",
        "false",
        "Allow an address that others can reach without tokens: /metrics, /healthz and /readyz are served there, nothing\n\
         else.",
    ),
    one(
        "http.kheish_api",
        "false",
        "In `up` and `server`: serve Kheish's own paths (/v1/runtime/hooks) in its shapes, for its tools.",
    ),
    secret(
        "http.bernstein_secret",
        "In `up` and `server`: the secret of Bernstein's webhooks. POST /v1/hooks/bernstein takes what is signed with it\n\
         (X-Bernstein-Signature) without a token. Not set: it takes a token.",
    ),
    secret(
        "http.bernstein_hook_secret",
        "The same for POST /hooks/{session_id}, where Bernstein's agents report hooks of Claude Code: what they have as\n\
         BERNSTEIN_HOOK_SECRET. Not set: the path is not served.",
    ),
    secret(
        "http.bernstein_webhook_secret",
        "The same for POST /webhook, by which Bernstein is given tasks: what callers have as BERNSTEIN_WEBHOOK_SECRET. Not\n\
         set: the path is not served.",
    ),
    Setting {
        path: "http.tokens",
        kind: Kind::Tokens,
        default: Fallback::Is(""),
        doc: "Who may do what: [read:TOKEN, publish:TOKEN, decide:TOKEN, operate:TOKEN], any number of each, at least 16\n\
              characters a token. read looks at everything, publish publishes events, decide asks gates, operate may do\n\
              everything.",
    },
    one(
        "http.tokens_file",
        "",
        "A file with more of them, one a line, such as read:TOKEN. What it holds may change at any time.",
    ),
    one(
        "http.tls_cert",
        "",
        "For https:// on http.bind: the certificate chain (a PEM file), with http.tls_key. Both are read again when they\n\
         change.",
    ),
    one("http.tls_key", "", "The private key of http.tls_cert (a PEM file)."),
    one(
        "startup.timeout",
        "10m",
        "How long a process that starts waits for RabbitMQ and Redis that are away; then it ends with exit code 69. It\n\
         serves http.bind meanwhile, and /readyz says what it waits for. Long enough for a broker that recovers its\n\
         queues, and bounded, so that a wrong host is noticed. 0s: not at all.",
    ),
    one(
        "startup.command_timeout",
        "15s",
        "The same for commands such as `hookfleet publish`, at which somebody waits.",
    ),
    one(
        "worker.cells",
        "0",
        "Threads that work, each with connections of its own, 1 to 64; 0: as many as there are cores.",
    ),
    list("worker.lanes", "default,slow", "The lanes whose hooks run here: default and slow, or one of them."),
    one("worker.prefetch", "256", "Unacked deliveries a queue, 1 to 2000."),
    one("worker.concurrency", "512", "Runs at a time in one process, in each lane, over all its hooks."),
    one("worker.hold", "5s", "No delivery is held longer than this, 1s to 60s; a longer run goes on under its claim."),
    one("worker.grace", "25s", "Time that runs get to finish at shutdown."),
    one(
        "gates.concurrency",
        "64",
        "Requests to gates that this process decides at a time, beside its other work. 0: none.",
    ),
    one(
        "gates.deadline",
        "30s",
        "How long a request to gates may take that names neither an expiration nor a deadline.",
    ),
    one("idempotency.lease", "30s", "A run whose claim is not renewed this long is taken over; at least 1s."),
    one("idempotency.window", "24h", "How long a finished invocation is remembered."),
    one(
        "events.body_bytes_max",
        "1000000",
        "An event with a larger body becomes a dead letter. Hooks get some more than the event, and many receivers take\n\
         no more than 1 MiB (1048576), which is why the default is less.",
    ),
    one(
        "events.missing_id",
        "refuse",
        "Plain JSON without a message_id: refuse (a dead letter) or digest (equal bodies are one event: within the\n\
         second that the property timestamp names, without it for as long as idempotency.window).",
    ),
    list(
        "events.missing_type",
        "refuse",
        "Plain JSON without the property type: refuse (a dead letter), or where its type comes from, tried in this order:\n\
         routing_key (the key by which it was published), celery (the header task; the header id is its id), nestjs (the\n\
         member pattern; the member id is its id).",
    ),
    one(
        "events.baggage",
        "drop",
        "The header `baggage` (W3C) of an event: drop, or forward to its hooks. traceparent and tracestate always go\n\
         along; baggage may hold what is none of a receiver's business.",
    ),
    one(
        "breaker.failures",
        "20",
        "So many failures of a target one after the other hold its invocations back until a single one succeeds, for\n\
         2s at first and 256s at most; no attempt is spent meanwhile. 0: never.",
    ),
    one("breaker.share", "0.9", "Or this share of failures among the attempts of breaker.window (at least 20)."),
    one("breaker.window", "30s", "The time over which breaker.share is taken."),
    one("retry.hint_max", "1h", "Longest Retry-After that is honoured; a longer one is cut to it."),
    list(
        "egress.allow",
        "",
        "Targets beside public addresses that hooks may call, as networks, addresses, or names of hosts whatever their\n\
         addresses are: [10.1.0.0/16, ::1, crm.internal].",
    ),
    list("egress.ports", "", "The only ports that hooks may call: [443]. Empty: any."),
    secret_url(
        "egress.proxy",
        "http://proxy.example.com:3128",
        "The HTTP proxy that http hooks go through: http://user:password@host:port. Not set: they call directly, whatever\n\
         HTTPS_PROXY and the like say. Targets are checked here before the proxy is asked, which resolves their names\n\
         again by itself.",
    ),
    list(
        "egress.no_proxy",
        "",
        "What http hooks call without it, as networks, addresses, or names of hosts; .internal stands for all names that\n\
         end so.",
    ),
    list(
        "commands.allow",
        "",
        "Programs that command hooks may run, as they write them in argv: [python3]. Empty: none.",
    ),
    list("commands.env", "PATH,HOME,LANG,LC_ALL,TZ,TMPDIR", "Variables that programs inherit."),
    one(
        "commands.shim",
        "",
        "The hookfleet program that starts the others, for programs that have hookfleet in them. Empty: this one.",
    ),
    list(
        "redact.data",
        "",
        "Places in the data of events that nobody is shown: [/card/number, /items/*/price], as JSON pointers, * for every\n\
         member or item. What is stored, and what hooks get, stays whole.",
    ),
    one("dead_letters.retention", "30d", "How long dead letters are kept; replays are remembered as long."),
    one(
        "log.level",
        "info",
        "What is logged: error, warn, info, debug, trace, or by part such as info,hookfleet=debug.",
    ),
    one("log.format", "text", "text or json."),
    one("log.payloads", "false", "Show payloads in debug lines."),
];

impl Setting {
    /// Its section, if it is in one, and its key there.
    pub(super) fn place(&self) -> (Option<&'static str>, &'static str) {
        self.path.split_once('.').map_or((None, self.path), |(section, key)| (Some(section), key))
    }

    /// The variables that set it.
    pub(super) fn variables(&self) -> Vec<String> {
        let mut names = vec![format!("HOOKFLEET_{}", self.path.replace('.', "_").to_ascii_uppercase())];
        if self.path == "log.level" {
            names.push("HOOKFLEET_LOG".to_owned()); // what everybody tries first
        }
        names
    }
}

/// The setting of this path.
pub(super) fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.path == path)
}

/// The keys at the top of the file, or those of a section.
pub(super) fn keys(section: Option<&str>) -> Vec<&'static str> {
    let mut keys = Vec::new();
    for setting in &SETTINGS {
        let key = match (section, setting.place()) {
            (None, (Some(section), _)) => section,
            (wanted, (found, key)) if wanted == found => key,
            _ => continue,
        };
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

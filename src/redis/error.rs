//! What an error of Redis means: what to say, and whether the connection is still good. Pure.

use ::redis::{ErrorKind, RedisError};

/// Why there is no answer. A call that was sent may have run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There will be none until somebody mends the settings, here or there. One sentence says which.
    #[error("Redis cannot be used: {0}")]
    Settings(String),
    /// There may be one later, by itself or when somebody has seen to it.
    #[error("Redis is away: {0}")]
    Away(String),
    /// It was reached, and said nothing.
    #[error("Redis did not answer in time")]
    Timeout,
    /// What one key holds cannot be used. Other keys can. One sentence names it.
    #[error("{0}")]
    Unreadable(String),
}

impl Failure {
    /// What to say of an error that concerns this key alone, if it does: another program has put a value of another type
    /// there.
    pub(super) fn of_key(error: &RedisError, key: &str, place: &Place) -> Option<Self> {
        let other_type = || {
            let (shown, key) = (&place.shown, key.escape_debug());
            format!(
                "the key \"{key}\" of {shown} holds a value of another type, which hookfleet has not written: delete it \
                 (DEL), and keep other programs out of the namespace"
            )
        };
        (error.code() == Some("WRONGTYPE")).then(|| Self::Unreadable(other_type()))
    }
}

/// An error and what is to be done about the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub error: Failure,
    pub connection: Fate,
}

/// What becomes of a connection on which a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The server answered, as it would on any other connection.
    Kept,
    /// It may lead nowhere: a new one takes its place as soon as there is one.
    Doubted,
    /// Nothing more comes of it.
    Broken,
}

/// Where calls go, in the words of messages. Never with a password.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// `redis://host:6379`, and the like.
    pub shown: String,
    /// The setting that it comes from.
    pub setting: &'static str,
    pub user: String,
    pub kind: PlaceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlaceKind {
    Single,
    /// The primary that sentinels name, or a sentinel.
    Watched,
    Cluster,
}

impl Trouble {
    pub(super) fn settings(sentence: String) -> Self {
        Self { error: Failure::Settings(sentence), connection: Fate::Broken }
    }

    pub(super) fn away(sentence: String) -> Self {
        Self { error: Failure::Away(sentence), connection: Fate::Broken }
    }
}

/// What an error of a call or of a new connection means.
pub(super) fn judge(error: &RedisError, place: &Place) -> Trouble {
    if error.is_timeout() {
        return Trouble { error: Failure::Timeout, connection: Fate::Doubted };
    }
    match error.kind() {
        ErrorKind::Io => by_connection(error, place),
        ErrorKind::AuthenticationFailed => by_code("WRONGPASS", "", error, place),
        ErrorKind::InvalidClientConfig => {
            Trouble::settings(format!("the settings of {} do not go together ({error})", place.shown))
        }
        ErrorKind::ClusterConnectionNotFound => {
            let sentence = format!("no node of {} that has the key can be reached", place.shown);
            Trouble { error: Failure::Away(sentence), connection: Fate::Doubted }
        }
        _ => by_code(error.code().unwrap_or_default(), error.detail().unwrap_or_default(), error, place),
    }
}

/// Codes are the first words of what a server answers.
fn by_code(code: &str, detail: &str, error: &RedisError, place: &Place) -> Trouble {
    let Place { shown, setting, user, kind } = place;
    let settings = |sentence: String| (Failure::Settings(sentence), Fate::Kept);
    let away = |sentence: String| (Failure::Away(sentence), Fate::Kept);
    let (error, connection) = match code {
        // A new connection reads the password file again.
        "WRONGPASS" => (
            Failure::Settings(format!(
                "{shown} refused user \"{user}\": check user and password in {setting}, or redis.password_file"
            )),
            Fate::Broken,
        ),
        "NOAUTH" => (
            Failure::Settings(format!(
                "{shown} asks for a password: set user and password in {setting}, or redis.password_file"
            )),
            Fate::Broken,
        ),
        "NOPERM" => settings(format!(
            "{shown} does not let user \"{user}\" do all that claims need ({detail}): the README lists the commands"
        )),
        "DENIED" => settings(format!(
            "{shown} refuses other machines (protected mode): give it a password, or set `protected-mode no` in its \
             settings"
        )),
        "READONLY" => {
            let hint = match kind {
                PlaceKind::Single => "redis.url must name the primary, or redis.sentinels must know it",
                PlaceKind::Watched | PlaceKind::Cluster => "a failover is under way",
            };
            (Failure::Away(format!("{shown} is a replica, which takes no writes: {hint}")), Fate::Broken)
        }
        "MOVED" | "ASK" if *kind != PlaceKind::Cluster => {
            settings(format!("{shown} is a node of a Redis Cluster: set `redis.cluster: true`"))
        }
        // The client follows these; where it says so all the same, the node it was sent to does not answer.
        "MOVED" => {
            (Failure::Away(format!("the node of {shown} that has the key cannot be reached ({detail})")), Fate::Doubted)
        }
        "ASK" | "TRYAGAIN" => away(format!("{shown} is moving the slot of a key ({code})")),
        "CLUSTERDOWN" => away(format!("{shown} does not serve all slots ({detail}): a primary is down or away")),
        "LOADING" => away(format!("{shown} is loading its data; it will answer soon")),
        "MASTERDOWN" => (Failure::Away(format!("{shown} is a replica without its primary ({detail})")), Fate::Broken),
        "OOM" => away(format!(
            "{shown} is full: it has reached its maxmemory, and under noeviction, which claims need, it takes no more \
             writes; give it more memory, or shorten idempotency.window"
        )),
        "MISCONF" => away(format!("{shown} cannot write to its disk and takes no writes ({detail})")),
        "NOREPLICAS" => away(format!("{shown} is in touch with too few replicas (min-replicas-to-write)")),
        "BUSY" => away(format!("{shown} is busy with a script ({detail})")),
        "ERR" => by_detail(detail, place),
        "" => away(format!("{shown}: {error}")),
        _ => away(format!("{shown} answered: {code} {detail}")),
    };
    Trouble { error, connection }
}

/// What has no code of its own.
fn by_detail(detail: &str, Place { shown, setting, user, .. }: &Place) -> (Failure, Fate) {
    let settings = |sentence: String| (Failure::Settings(sentence), Fate::Kept);
    if detail.contains("max number of clients reached") {
        return (Failure::Away(format!("{shown} takes no more connections (maxclients)")), Fate::Broken);
    }
    if detail.contains("without any password configured") {
        return settings(format!(
            "{shown} has no password for user \"{user}\", but {setting} or redis.password_file gives one: take it away, \
             or name the right user"
        ));
    }
    if detail.contains("DB index is out of range") || detail.contains("SELECT is not allowed in cluster mode") {
        return settings(format!("{shown} has no such database ({detail}): check the path of {setting}"));
    }
    if detail.contains("cluster support disabled") {
        return settings(format!("{shown} is no node of a Redis Cluster: take `redis.cluster` away"));
    }
    if detail.contains("syntax error") {
        return settings(too_old(shown, "an older version"));
    }
    if detail.contains("unknown command") {
        return settings(format!("{shown} does not know all that is needed of it ({detail})"));
    }
    (Failure::Away(format!("{shown} answered: {detail}")), Fate::Kept)
}

fn too_old(shown: &str, version: &str) -> String {
    format!("{shown} is {version}: Redis 7.0 or newer is needed, or Valkey")
}

/// Errors of sockets, TLS included: they know no kinds, so their texts must do.
fn by_connection(error: &RedisError, Place { shown, setting, .. }: &Place) -> Trouble {
    let text = error.to_string();
    let has = |part: &str| text.contains(part);
    if has("invalid peer certificate") {
        return Trouble::settings(format!(
            "{shown} cannot be trusted ({text}): its certificate must be valid for the host in {setting} and come from \
             an authority in redis.tls_ca"
        ));
    }
    if has("CertificateRequired") || has("HandshakeFailure") || has("BadCertificate") || has("UnknownCA") {
        return Trouble::settings(format!(
            "{shown} refused this client's certificate or the lack of one ({text}): check redis.tls_cert and \
             redis.tls_key"
        ));
    }
    if has("InvalidContentType") || has("corrupt message") {
        return Trouble::settings(format!("{shown} does not speak TLS ({text}): check scheme and port in {setting}"));
    }
    if error.is_connection_refusal() || has("lookup address") {
        return Trouble::away(format!(
            "cannot connect to {shown} ({text}): is it running, and are host and port in {setting} right?"
        ));
    }
    Trouble::away(format!("the connection to {shown} is lost ({text})"))
}

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hello {
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: String,
    /// `master` or `replica`.
    pub role: String,
    pub version: String,
}

impl Hello {
    /// Whether claims can be kept there. What is not said is taken to be right.
    pub(super) fn check(&self, place: &Place) -> Result<(), Trouble> {
        let shown = &place.shown;
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if self.mode == "sentinel" {
            return Err(Trouble::settings(format!(
                "{shown} is a sentinel: name it in redis.sentinels, and in redis.url the primary that it watches"
            )));
        }
        if let Some(0..7) = major {
            return Err(Trouble::settings(too_old(shown, &format!("version {}", self.version))));
        }
        match (place.kind, self.mode.as_str(), self.role.as_str()) {
            (PlaceKind::Cluster, "standalone", _) => {
                Err(Trouble::settings(format!("{shown} is no node of a Redis Cluster: take `redis.cluster` away")))
            }
            (PlaceKind::Single | PlaceKind::Watched, "cluster", _) => {
                Err(Trouble::settings(format!("{shown} is a node of a Redis Cluster: set `redis.cluster: true`")))
            }
            // Also a replica that lets itself be written to: it forgets what its primary does not know.
            (PlaceKind::Single, _, "replica" | "slave") => Err(Trouble::away(format!(
                "{shown} is a replica: redis.url must name the primary, or redis.sentinels must know it"
            ))),
            (PlaceKind::Watched, _, "replica" | "slave") => {
                Err(Trouble::away(format!("{shown} is a replica yet: a failover is under way")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use ::redis::parse_redis_value;

    use super::*;
    use Fate::{Broken, Kept};
    use PlaceKind::{Cluster, Single, Watched};

    fn place(kind: PlaceKind) -> Place {
        Place { shown: "r:6379".into(), setting: "redis.url", user: "fleet".into(), kind }
    }

    /// What a server sent, as far as it tells of the line's end, and what becomes of it.
    fn check(kind: PlaceKind, sent: &str, fate: Fate, expected: &str) {
        let answer = parse_redis_value(format!("-{sent}\r\n").as_bytes()).unwrap();
        let trouble = judge(&answer.extract_error().unwrap_err(), &place(kind));
        assert_eq!((trouble.connection, trouble.error.to_string().as_str()), (fate, expected), "{sent}");
    }

    // The texts are those of Redis 7.0.

    fn away(text: &str) -> String {
        format!("Redis is away: {text}")
    }

    fn settings(text: &str) -> String {
        format!("Redis cannot be used: {text}")
    }

    #[test]
    fn who_is_not_let_in() {
        let sent = "WRONGPASS invalid username-password pair or user is disabled.";
        let text = "r:6379 refused user \"fleet\": check user and password in redis.url, or redis.password_file";
        check(Single, sent, Broken, &settings(text));
        let text = "r:6379 asks for a password: set user and password in redis.url, or redis.password_file";
        check(Single, "NOAUTH Authentication required.", Broken, &settings(text));
        let text = "r:6379 does not let user \"fleet\" do all that claims need (User fleet has no permissions to run the \
                    'evalsha' command): the README lists the commands";
        check(Single, "NOPERM User fleet has no permissions to run the 'evalsha' command", Kept, &settings(text));
        let sent = "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                    configuration is correct?";
        let text = "r:6379 has no password for user \"fleet\", but redis.url or redis.password_file gives one: take it \
                    away, or name the right user";
        check(Single, sent, Kept, &settings(text));
        let sent = "DENIED Redis is running in protected mode because protected mode is enabled and no password is set";
        let text = "r:6379 refuses other machines (protected mode): give it a password, or set `protected-mode no` in \
                    its settings";
        check(Single, sent, Kept, &settings(text));
    }

    #[test]
    fn what_passes() {
        let sent = "READONLY You can't write against a read only replica.";
        let text = "r:6379 is a replica, which takes no writes: redis.url must name the primary, or redis.sentinels \
                    must know it";
        check(Single, sent, Broken, &away(text));
        let sent = "READONLY You can't write against a read only replica. script: 4f1c2e, on @user_script:27.";
        let text = "r:6379 is a replica, which takes no writes: a failover is under way";
        check(Watched, sent, Broken, &away(text));
        let sent = "LOADING Redis is loading the dataset in memory";
        check(Single, sent, Kept, &away("r:6379 is loading its data; it will answer soon"));
        let text = "r:6379 is full: it has reached its maxmemory, and under noeviction, which claims need, it takes no \
                    more writes; give it more memory, or shorten idempotency.window";
        check(Single, "OOM command not allowed when used memory > 'maxmemory'.", Kept, &away(text));
        let sent = "OOM command not allowed when used memory > 'maxmemory'. script: 4f1c2e, on @user_script:27.";
        check(Single, sent, Kept, &away(text));
        let sent = "MISCONF Errors writing to the AOF file: No space left on device";
        let text = "r:6379 cannot write to its disk and takes no writes (Errors writing to the AOF file: No space left \
                    on device)";
        check(Single, sent, Kept, &away(text));
        let text = "r:6379 is in touch with too few replicas (min-replicas-to-write)";
        check(Single, "NOREPLICAS Not enough good replicas to write.", Kept, &away(text));
        let sent = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
        let text = "r:6379 is a replica without its primary (Link with MASTER is down and replica-serve-stale-data is \
                    set to 'no'.)";
        check(Watched, sent, Broken, &away(text));
        let text = "r:6379 is busy with a script (Redis is busy running a script.)";
        check(Single, "BUSY Redis is busy running a script.", Kept, &away(text));
        let text = "r:6379 takes no more connections (maxclients)";
        check(Single, "ERR max number of clients reached", Broken, &away(text));
    }

    #[test]
    fn clusters_versions_and_the_rest() {
        let text = "r:6379 is a node of a Redis Cluster: set `redis.cluster: true`";
        check(Single, "MOVED 2908 127.0.0.1:7001", Kept, &settings(text));
        let text = "the node of r:6379 that has the key cannot be reached (2908 127.0.0.1:7001)";
        check(Cluster, "MOVED 2908 127.0.0.1:7001", Fate::Doubted, &away(text));
        check(Cluster, "ASK 2908 127.0.0.1:7001", Kept, &away("r:6379 is moving the slot of a key (ASK)"));
        let sent = "TRYAGAIN Multiple keys request during rehashing of slot";
        check(Cluster, sent, Kept, &away("r:6379 is moving the slot of a key (TRYAGAIN)"));
        let text = "r:6379 does not serve all slots (The cluster is down): a primary is down or away";
        check(Cluster, "CLUSTERDOWN The cluster is down", Kept, &away(text));
        let text = "r:6379 is no node of a Redis Cluster: take `redis.cluster` away";
        check(Cluster, "ERR This instance has cluster support disabled", Kept, &settings(text));

        let text = "r:6379 has no such database (DB index is out of range): check the path of redis.url";
        check(Single, "ERR DB index is out of range", Kept, &settings(text));
        let text = "r:6379 is an older version: Redis 7.0 or newer is needed, or Valkey";
        check(Single, "ERR syntax error", Kept, &settings(text));
        check(Single, "ERR what is this", Kept, &away("r:6379 answered: what is this"));
        check(Single, "WHATEVER is this", Kept, &away("r:6379 answered: WHATEVER is this"));
    }

    /// Case D4: it is the key's fault, and the connection and all other keys are as good as before.
    #[test]
    fn d4_a_key_of_another_type() {
        let check = |sent: &str, expected: Option<&str>| {
            let answer = parse_redis_value(format!("-{sent}\r\n").as_bytes()).unwrap();
            let error = answer.extract_error().unwrap_err();
            let found = Failure::of_key(&error, "h:claim:{1}:\n", &place(Single));
            assert_eq!(found.map(|failure| failure.to_string()).as_deref(), expected, "{sent}");
        };
        let text = "the key \"h:claim:{1}:\\n\" of r:6379 holds a value of another type, which hookfleet has not written: \
                    delete it (DEL), and keep other programs out of the namespace";
        check("WRONGTYPE Operation against a key holding the wrong kind of value", Some(text));
        let in_script = "WRONGTYPE Operation against a key holding the wrong kind of value script: 4f1c2e, on \
                         @user_script:4.";
        check(in_script, Some(text));
        check("ERR what is this", None);
        check("OOM command not allowed when used memory > 'maxmemory'.", None);
    }

    #[test]
    fn errors_of_sockets() {
        let check = |error: io::Error, fate: Fate, expected: &str| {
            let trouble = judge(&RedisError::from(error), &place(PlaceKind::Single));
            assert_eq!((trouble.connection, trouble.error.to_string().as_str()), (fate, expected));
        };
        let late = "Redis did not answer in time";
        check(io::ErrorKind::TimedOut.into(), Fate::Doubted, late);
        check(
            io::ErrorKind::ConnectionRefused.into(),
            Fate::Broken,
            "Redis is away: cannot connect to r:6379 (connection refused): is it running, and are host and \
             port in redis.url right?",
        );
        check(
            io::ErrorKind::BrokenPipe.into(),
            Fate::Broken,
            "Redis is away: the connection to r:6379 is lost (broken pipe)",
        );
        check(
            io::Error::other("invalid peer certificate: UnknownIssuer"),
            Fate::Broken,
            "Redis cannot be used: r:6379 cannot be trusted (invalid peer certificate: UnknownIssuer): its \
             certificate must be valid for the host in redis.url and come from an authority in redis.tls_ca",
        );
        check(
            io::Error::other("received corrupt message of type InvalidContentType"),
            Fate::Broken,
            "Redis cannot be used: r:6379 does not speak TLS (received corrupt message of type \
             InvalidContentType): check scheme and port in redis.url",
        );
        check(
            io::Error::other("received fatal alert: CertificateRequired"),
            Fate::Broken,
            "Redis cannot be used: r:6379 refused this client's certificate or the lack of one (received \
             fatal alert: CertificateRequired): check redis.tls_cert and redis.tls_key",
        );
    }

    #[test]
    fn servers_by_what_they_say_of_themselves() {
        let check = |kind: PlaceKind, [mode, role, version]: [&str; 3], expected: &str| {
            let hello = Hello { mode: mode.into(), role: role.into(), version: version.into() };
            let found = hello.check(&place(kind)).map_or_else(|trouble| trouble.error.to_string(), |()| "right".into());
            assert_eq!(found, expected, "{hello:?}");
        };
        for kind in [Single, Watched] {
            check(kind, ["standalone", "master", "7.0.15"], "right");
            check(kind, ["", "", ""], "right");
        }
        check(Cluster, ["cluster", "replica", "8.1.0"], "right");
        let (away, settings) = ("Redis is away: r:6379", "Redis cannot be used: r:6379");
        let needs = "Redis 7.0 or newer is needed, or Valkey";
        check(Single, ["standalone", "master", "6.2.14"], &format!("{settings} is version 6.2.14: {needs}"));
        let text = "is a replica: redis.url must name the primary, or redis.sentinels must know it";
        check(Single, ["standalone", "replica", "7.0.15"], &format!("{away} {text}"));
        let text = "is a replica yet: a failover is under way";
        check(Watched, ["standalone", "replica", "7.0.15"], &format!("{away} {text}"));
        let text = "is a node of a Redis Cluster: set `redis.cluster: true`";
        check(Single, ["cluster", "master", "7.0.15"], &format!("{settings} {text}"));
        let text = "is no node of a Redis Cluster: take `redis.cluster` away";
        check(Cluster, ["standalone", "master", "7.0.15"], &format!("{settings} {text}"));
        let text = "is a sentinel: name it in redis.sentinels, and in redis.url the primary that it watches";
        check(Single, ["sentinel", "", "7.0.15"], &format!("{settings} {text}"));
    }
}

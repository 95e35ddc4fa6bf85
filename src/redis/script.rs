//! A Lua script that servers keep under its digest.

use ::redis::{ErrorKind, FromRedisValue, RedisResult, ServerErrorKind, cmd};

use super::connect::Connection;

/// A script that works on keys of one slot.
pub struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    #[must_use]
    pub fn new(text: &'static str) -> Self {
        Self { text, digest: ::redis::Script::new(text).get_hash().to_owned() }
    }

    pub(super) async fn run<T: FromRedisValue>(
        &self,
        connection: &mut Connection,
        keys: &[&str],
        arguments: &[impl AsRef<str>],
    ) -> RedisResult<T> {
        let call = |name: &str, script: &str| {
            let mut call = cmd(name);
            call.arg(script).arg(keys.len()).arg(keys);
            for argument in arguments {
                call.arg(argument.as_ref());
            }
            call
        };
        match connection.query(&call("EVALSHA", &self.digest)).await {
            // New, or back from a restart, or promoted: it learns the script with the call.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                connection.query(&call("EVAL", self.text)).await
            }
            answer => answer,
        }
    }
}

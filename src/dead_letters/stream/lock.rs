//! A name that one process of all has: an exclusive queue, which ends with the connection that declared it.
//!
//! It keeps two from doing the same at once, which would be a waste. Nothing depends on it: in a broker that is torn apart
//! two may have it.

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection};

use super::super::Keeping;
use crate::amqp::connection::{call, connect, is_locked};
use crate::config::BrokerServer;

/// Held until dropped.
pub(super) struct Lock {
    pub(super) connection: Connection,
    _channel: Channel,
}

/// Takes the name, unless another process has it.
pub(super) async fn take(server: &BrokerServer, purpose: &str, name: &str) -> Result<Option<Lock>, String> {
    let connection = connect(server, purpose).await.map_err(|error| error.to_string())?;
    let channel = call("open a channel", connection.create_channel()).await?;
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(name.into(), options, FieldTable::default());
    match call("lock", declared).await {
        Ok(_) => Ok(Some(Lock { connection, _channel: channel })),
        Err(error) if is_locked(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Keeping for Lock {
    fn is_held(&self) -> bool {
        self.connection.status().connected()
    }
}

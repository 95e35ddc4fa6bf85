//! Names of headers that no hook may set, for each protocol that hooks send headers in.

/// Header of a request with the key that its receiver tells repeats by.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Header of a request that says who calls (RFC 9110, 11.6.2).
pub const AUTHORIZATION: &str = "authorization";

/// Headers that say where an HTTP message ends, whom it is for, or what becomes of its connection. The HTTP client sets
/// them.
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that RabbitMQ reads as lists of further routing keys. It closes the channel if one of them is a text.
const ROUTING: [&str; 2] = ["CC", "BCC"];

/// The beginning of the names of the fleet's own headers, in any case of its letters.
const OWN: &str = "hookfleet-";

/// Whether the HTTP client alone sets a header; its name is in lower case.
#[must_use]
pub fn is_framing(name: &str) -> bool {
    FRAMING.contains(&name)
}

/// Whether no hook may set a header of its HTTP requests; its name is in lower case.
#[must_use]
pub fn is_reserved_in_http(name: &str) -> bool {
    name == IDEMPOTENCY_KEY || is_framing(name)
}

/// Whether no hook may set a header of its AMQP messages.
#[must_use]
pub fn is_reserved_in_amqp(name: &str) -> bool {
    ROUTING.contains(&name) || name.to_ascii_lowercase().starts_with(OWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_in_http() {
        for (name, expected) in [
            ("idempotency-key", true),
            ("host", true),
            ("transfer-encoding", true),
            ("content-type", false),
            ("authorization", false),
            ("hookfleet-tenant", false),
        ] {
            assert_eq!(is_reserved_in_http(name), expected, "{name}");
        }
        assert!(!is_framing(IDEMPOTENCY_KEY));
    }

    #[test]
    fn reserved_in_amqp() {
        for (name, expected) in [
            ("CC", true),
            ("BCC", true),
            ("cc", false), // RabbitMQ reads the names as they are written
            ("hookfleet-hops", true),
            ("HookFleet-Lane", true),
            ("hookfleet", false),
            ("tenant", false),
        ] {
            assert_eq!(is_reserved_in_amqp(name), expected, "{name}");
        }
    }
}

//! How a target knows who calls it: signatures over the exact bytes of a body. Pure: the clock is an argument.
//!
//! Standard Webhooks 1.0.0 signs `id.timestamp.body`: the id is the same for every attempt, so that the receiver tells
//! repeats by it; time and signature are new at each. Several keys sign side by side, so that a receiver can go over from
//! one to the next. Plain HMAC signs the body alone, as many systems did before there was a standard.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use ed25519_dalek::SigningKey;
use ed25519_dalek::ed25519::signature::MultipartSigner as _;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256, Sha512};

use super::secret::Secret;
use super::text_error::Refusal;

/// Of what every signature of Standard Webhooks goes with.
pub const WEBHOOK_ID: &str = "webhook-id";
pub const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
pub const WEBHOOK_SIGNATURE: &str = "webhook-signature";

/// Bytes of a symmetric key: as the standard wants them.
const SYMMETRIC_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const SYMMETRIC: &str = "whsec_";
const ASYMMETRIC: &str = "whsk_";

/// How a hook's requests are signed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Signing {
    /// Standard Webhooks: each of them signs.
    pub standard: Vec<StandardKey>,
    pub plain: Option<PlainKey>,
}

/// A key of Standard Webhooks, ready to sign.
#[derive(Clone)]
pub struct StandardKey {
    written: Secret<String>,
    /// None: its value is not known to this process.
    key: Option<Key>,
}

#[derive(Clone)]
enum Key {
    /// `v1`: HMAC-SHA256.
    Symmetric(Hmac<Sha256>),
    /// `v1a`: ed25519.
    Asymmetric(Box<SigningKey>),
}

/// An HMAC of the body in a header of its own.
#[derive(Clone)]
pub struct PlainKey {
    /// In lower case.
    pub header: String,
    /// What stands before the signature, such as `sha256=`.
    pub prefix: String,
    pub encoding: Encoding,
    written: Secret<String>,
    key: Option<PlainMac>,
}

#[derive(Clone)]
enum PlainMac {
    Sha256(Hmac<Sha256>),
    Sha512(Hmac<Sha512>),
}

/// How a plain signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Lower-case hexadecimal digits.
    Hex,
    Base64,
}

/// The hash of a plain signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl std::fmt::Debug for StandardKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hidden]")
    }
}

impl std::fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: [hidden]", self.header)
    }
}

impl PartialEq for StandardKey {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl PartialEq for PlainKey {
    fn eq(&self, other: &Self) -> bool {
        let of = |key: &Self| matches!(key.key, Some(PlainMac::Sha512(_)));
        (&self.header, &self.prefix, self.encoding, &self.written, of(self))
            == (&other.header, &other.prefix, other.encoding, &other.written, of(other))
    }
}

impl StandardKey {
    /// A key as it is written: `whsec_` and base64 of 24 to 64 bytes, or `whsk_` and base64 of an ed25519 key: of its
    /// 32 bytes, or of these and the public key's.
    ///
    /// # Errors
    /// It is neither. Shows nothing of it.
    pub fn new(written: &str) -> Result<Self, Refusal> {
        let key = if let Some(text) = written.strip_prefix(SYMMETRIC) {
            let bytes = decoded(text)?;
            if !SYMMETRIC_BYTES.contains(&bytes.len()) {
                let found = format!("base64 of {} bytes", bytes.len());
                return Err(Refusal::new("`whsec_` and base64 of 24 to 64 bytes", found));
            }
            Key::Symmetric(mac(&bytes)?)
        } else if let Some(text) = written.strip_prefix(ASYMMETRIC) {
            Key::Asymmetric(Box::new(asymmetric(&decoded(text)?)?))
        } else {
            return Err(Refusal::new("a signing key that begins with `whsec_` or `whsk_`", "another beginning"));
        };
        Ok(Self { written: Secret::new(written.to_owned()), key: Some(key) })
    }

    /// A key whose value is not known to this process, as it is written.
    #[must_use]
    pub fn unknown(written: String) -> Self {
        Self { written: Secret::new(written), key: None }
    }

    /// `version,base64`; the parts are signed as if they were one text.
    fn sign(&self, parts: &[&[u8]]) -> Option<String> {
        Some(match self.key.as_ref()? {
            Key::Symmetric(mac) => {
                let mut mac = mac.clone();
                for part in parts {
                    mac.update(part);
                }
                format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
            }
            Key::Asymmetric(key) => format!("v1a,{}", STANDARD.encode(key.try_multipart_sign(parts).ok()?.to_bytes())),
        })
    }
}

/// Keys are taken with and without the `=` at their end, as the libraries of Standard Webhooks take them.
const KEYS: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn decoded(text: &str) -> Result<Vec<u8>, Refusal> {
    KEYS.decode(text).map_err(|_| Refusal::new("base64 behind the prefix of the key", "another text"))
}

fn mac<M: KeyInit>(key: &[u8]) -> Result<M, Refusal> {
    M::new_from_slice(key).map_err(|_| Refusal::new("a key", "one of no use"))
}

fn asymmetric(bytes: &[u8]) -> Result<SigningKey, Refusal> {
    if let Ok(seed) = <&[u8; 32]>::try_from(bytes) {
        return Ok(SigningKey::from_bytes(seed));
    }
    let Ok(pair) = <&[u8; 64]>::try_from(bytes) else {
        let found = format!("base64 of {} bytes", bytes.len());
        return Err(Refusal::new("`whsk_` and base64 of 32 or 64 bytes", found));
    };
    let expected = "`whsk_` and base64 of an ed25519 key and its public key";
    SigningKey::from_keypair_bytes(pair).map_err(|_| Refusal::new(expected, "two keys that are not of one pair"))
}

impl PlainKey {
    /// Signs with this key; a header is named in lower case.
    ///
    /// # Errors
    /// The key is empty.
    pub fn new(
        header: String,
        prefix: String,
        encoding: Encoding,
        algorithm: Algorithm,
        written: &str,
    ) -> Result<Self, Refusal> {
        if written.is_empty() {
            return Err(Refusal::new("a key", "nothing"));
        }
        let key = Some(match algorithm {
            Algorithm::Sha256 => PlainMac::Sha256(mac(written.as_bytes())?),
            Algorithm::Sha512 => PlainMac::Sha512(mac(written.as_bytes())?),
        });
        Ok(Self { header, prefix, encoding, written: Secret::new(written.to_owned()), key })
    }

    /// The same with a key whose value is not known to this process.
    #[must_use]
    pub fn unknown(header: String, prefix: String, encoding: Encoding, written: String) -> Self {
        Self { header, prefix, encoding, written: Secret::new(written), key: None }
    }

    fn sign(&self, body: &[u8]) -> Option<String> {
        let bytes = match self.key.as_ref()? {
            PlainMac::Sha256(mac) => mac.clone().chain_update(body).finalize().into_bytes().to_vec(),
            PlainMac::Sha512(mac) => mac.clone().chain_update(body).finalize().into_bytes().to_vec(),
        };
        let text = match self.encoding {
            Encoding::Hex => hex::encode(bytes),
            Encoding::Base64 => STANDARD.encode(bytes),
        };
        Some(format!("{}{text}", self.prefix))
    }
}

impl Signing {
    /// Names of the headers that are set by it.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        let standard = [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE];
        let standard = standard.into_iter().filter(|_| !self.standard.is_empty());
        standard.chain(self.plain.iter().map(|plain| plain.header.as_str()))
    }

    /// The headers of one attempt, given the invocation's key and the time in seconds since 1970.
    ///
    /// # Errors
    /// The value of a key is not known to this process.
    pub fn sign(&self, key: &str, now_s: u64, body: &[u8]) -> Result<Vec<(&str, String)>, &'static str> {
        const UNKNOWN: &str = "a signing key of the hook is not known to this process";
        let mut headers = Vec::new();
        if !self.standard.is_empty() {
            let (id, at) = (webhook_id(key), now_s.to_string());
            let parts = [id.as_bytes(), b".", at.as_bytes(), b".", body];
            let signed: Option<Vec<String>> = self.standard.iter().map(|key| key.sign(&parts)).collect();
            headers.push((WEBHOOK_SIGNATURE, signed.ok_or(UNKNOWN)?.join(" ")));
            headers.push((WEBHOOK_ID, id));
            headers.push((WEBHOOK_TIMESTAMP, at));
        }
        if let Some(plain) = &self.plain {
            headers.push((plain.header.as_str(), plain.sign(body).ok_or(UNKNOWN)?));
        }
        Ok(headers)
    }
}

/// The standard's id of an invocation, which must have no full stop; hook ids may.
fn webhook_id(key: &str) -> String {
    format!("msg_{}", hex::encode(&Sha256::digest(key)[..16]))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, Verifier as _};

    use super::*;

    /// The standard's own example.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_vector_of_the_standard() {
        let key = StandardKey::new(SECRET).unwrap();
        let parts: [&[u8]; 5] = [b"msg_p5jXN8AQM9LWM0D4loKWxJek", b".", b"1614265330", b".", b"{\"test\": 2432232314}"];
        assert_eq!(key.sign(&parts).unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn keys_side_by_side() {
        let seed = [7; 32];
        let pair = SigningKey::from_bytes(&seed).to_keypair_bytes();
        let bare = STANDARD.encode(pair).trim_end_matches('=').to_owned();
        let keys = [SECRET.to_owned(), format!("whsk_{}", STANDARD.encode(seed)), format!("whsk_{bare}")];
        let standard = keys.iter().map(|key| StandardKey::new(key).unwrap()).collect();
        let signing = Signing { standard, plain: None };
        let headers = signing.sign("0da0/h.1", 1_614_265_330, b"{}").unwrap();
        let value = |name: &str| headers.iter().find(|(found, _)| *found == name).unwrap().1.clone();
        let (id, signatures) = (value(WEBHOOK_ID), value(WEBHOOK_SIGNATURE));
        assert!(id.starts_with("msg_") && !id.contains('.'), "{id}");
        assert_eq!(value(WEBHOOK_TIMESTAMP), "1614265330");
        let [v1, first, second] = signatures.split(' ').collect::<Vec<_>>()[..] else { panic!("{signatures}") };
        assert!(v1.starts_with("v1,") && first == second, "{signatures}");
        let signature = STANDARD.decode(first.strip_prefix("v1a,").unwrap()).unwrap();
        let signature = Signature::from_slice(&signature).unwrap();
        let signed = format!("{id}.1614265330.{{}}");
        SigningKey::from_bytes(&seed).verifying_key().verify(signed.as_bytes(), &signature).unwrap();
        // The same for every attempt, another one for another invocation.
        assert_eq!(signing.sign("0da0/h.1", 7, b"").unwrap()[1].1, id);
        assert_ne!(signing.sign("0da0/h.2", 7, b"").unwrap()[1].1, id);
    }

    /// As the libraries of the standard take them.
    #[test]
    fn a_key_may_end_without_padding() {
        for bytes in [vec![1; 32], vec![2; 25], vec![3; 24]] {
            let padded = format!("whsec_{}", STANDARD.encode(&bytes));
            let bare = padded.trim_end_matches('=');
            let sign = |written: &str| StandardKey::new(written).unwrap().sign(&[b"x"]);
            assert_eq!(sign(bare), sign(&padded), "{padded}");
        }
    }

    /// RFC 4231, test case 2.
    #[test]
    fn plain_signatures() {
        let check = |algorithm, encoding, prefix: &str, expected: &str| {
            let plain = PlainKey::new("x-sig".into(), prefix.into(), encoding, algorithm, "Jefe").unwrap();
            let signing = Signing { standard: Vec::new(), plain: Some(plain) };
            let headers = signing.sign("k", 0, b"what do ya want for nothing?").unwrap();
            assert_eq!(headers, [("x-sig", expected.to_owned())]);
        };
        let sha256 = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        check(Algorithm::Sha256, Encoding::Hex, "sha256=", &format!("sha256={sha256}"));
        check(Algorithm::Sha256, Encoding::Base64, "", &STANDARD.encode(hex::decode(sha256).unwrap()));
        let sha512 = "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd\
                      caeab1a34d4a6b4b636e070a38bce737";
        check(Algorithm::Sha512, Encoding::Hex, "", sha512);
    }

    #[test]
    fn wrong_keys() {
        let check = |written: &str, expected: &str, found: &str| {
            let refusal = StandardKey::new(written).unwrap_err();
            assert_eq!((refusal.expected.as_str(), refusal.found.as_str()), (expected, found), "{written}");
        };
        check("hunter2", "a signing key that begins with `whsec_` or `whsk_`", "another beginning");
        check("whsec_", "`whsec_` and base64 of 24 to 64 bytes", "base64 of 0 bytes");
        check("whsec_AAAA", "`whsec_` and base64 of 24 to 64 bytes", "base64 of 3 bytes");
        check("whsec_hunter2!", "base64 behind the prefix of the key", "another text");
        check("whsk_AAAA", "`whsk_` and base64 of 32 or 64 bytes", "base64 of 3 bytes");
        let torn = format!("whsk_{}", STANDARD.encode([7; 64]));
        let expected = "`whsk_` and base64 of an ed25519 key and its public key";
        check(&torn, expected, "two keys that are not of one pair");
        let key = StandardKey::unknown("${env:KEY}".to_owned());
        let signing = Signing { standard: vec![key], plain: None };
        assert!(signing.sign("k", 0, b"").unwrap_err().contains("not known"));
        assert!(!format!("{signing:?}").contains("KEY"));
    }
}

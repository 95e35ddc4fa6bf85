//! What a hook's TLS has beside the usual: authorities of its own, and a certificate to show.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

use super::secret::Secret;
use super::template::Piece;
use super::text_error::Refusal;

/// What the TLS of a hook goes by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Tls {
    /// The roots of trust of this system, and no certificate of its own.
    #[default]
    Usual,
    Own(Arc<Credentials>),
    /// `ca`, `cert` and `key`, of which not all are known to this process.
    Unknown(Box<[Vec<Piece>; 3]>),
}

impl Tls {
    /// A byte for each of `ca` and `cert` that a hook brings. Not what they are: the next certificate calls the same target.
    #[must_use]
    pub fn parts(&self) -> Vec<u8> {
        let (ca, cert) = match self {
            Self::Usual => (false, false),
            Self::Own(own) => (own.ca.is_some(), own.identity.is_some()),
            Self::Unknown(texts) => (!texts[0].is_empty(), !texts[1].is_empty()),
        };
        ca.then_some(1).into_iter().chain(cert.then_some(2)).collect()
    }

    /// How the values are written that are not known to this process.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        let texts = match self {
            Self::Unknown(texts) => texts.as_slice(),
            Self::Usual | Self::Own(_) => &[],
        };
        texts.iter().flatten().filter_map(|piece| match piece {
            Piece::Unknown { written, .. } => Some(written.as_str()),
            Piece::Literal(_) | Piece::Hidden(_) => None,
        })
    }
}

/// PEM texts (RFC 7468) that were found to be in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Equal for equal ones, which share connections; shows nothing of them.
    pub id: [u8; 32],
    /// Authorities that are trusted beside the usual ones.
    pub ca: Option<Secret<String>>,
    /// Certificates, the client's first, and its key.
    pub identity: Option<Secret<String>>,
}

/// A hook's certificate and key, as they are written.
pub struct Identity<'a> {
    pub cert: &'a str,
    pub key: &'a str,
}

impl Credentials {
    /// # Errors
    /// One of them is not what it should be, or the key is another certificate's. Shows nothing of them.
    pub fn new(ca: Option<&str>, identity: Option<&Identity<'_>>) -> Result<Self, Refusal> {
        if let Some(ca) = ca {
            let mut roots = RootCertStore::empty();
            let wrong = || Refusal::new("certificates of authorities in PEM", "something else");
            for certificate in certificates(ca).ok_or_else(wrong)? {
                roots.add(certificate).map_err(|_| wrong())?;
            }
        }
        let identity = identity.map(Identity::checked).transpose()?;
        let mut digest = Sha256::new();
        for part in [ca, identity.as_deref()] {
            digest.update([u8::from(part.is_some())]);
            digest.update(Sha256::digest(part.unwrap_or_default()));
        }
        Ok(Self {
            id: digest.finalize().into(),
            ca: ca.map(|ca| Secret::new(ca.to_owned())),
            identity: identity.map(Secret::new),
        })
    }
}

impl Identity<'_> {
    fn checked(&self) -> Result<String, Refusal> {
        let chain = certificates(self.cert).ok_or_else(|| Refusal::new("`cert` in PEM", "something else"))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|_| Refusal::new("`key` in PEM, without a passphrase", "something else"))?;
        let provider = ring::default_provider();
        CertifiedKey::from_der(chain, key, &provider).map_err(|_| {
            Refusal::new("the `key` of the first certificate in `cert`", "another one, or a kind that is not supported")
        })?;
        Ok(format!("{}\n{}\n", self.cert, self.key))
    }
}

/// At least one.
fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()?;
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    fn pair() -> (String, String) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        (cert.pem(), signing_key.serialize_pem())
    }

    #[test]
    fn what_is_taken() {
        let ((cert, key), (other, _)) = (pair(), pair());
        let of = |ca: Option<&str>, cert: &str, key: &str| Credentials::new(ca, Some(&Identity { cert, key }));
        let good = of(Some(&other), &cert, &key).unwrap();
        assert_eq!(good, of(Some(&other), &cert, &key).unwrap());
        for another in [of(None, &cert, &key), Credentials::new(Some(&other), None), of(Some(&cert), &cert, &key)] {
            assert_ne!(another.unwrap().id, good.id);
        }
        assert!(!format!("{good:?}").contains("PRIVATE KEY"));
        let refused = |tls: Result<Credentials, Refusal>, expected: &str| {
            let refusal = tls.unwrap_err();
            assert_eq!(refusal.expected, expected);
        };
        refused(Credentials::new(Some("hunter2"), None), "certificates of authorities in PEM");
        refused(Credentials::new(Some(&key), None), "certificates of authorities in PEM");
        refused(of(None, &key, &key), "`cert` in PEM");
        refused(of(None, &cert, &cert), "`key` in PEM, without a passphrase");
        refused(of(None, &other, &key), "the `key` of the first certificate in `cert`");
    }
}

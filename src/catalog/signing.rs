//! How the requests of an http hook are signed.

use super::secret::known;
use super::{Outside, headers};
use crate::domain::signature::{Algorithm, Encoding, PlainKey, Signing, StandardKey};
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::one_of;
use crate::yaml::value::Value;

const ALGORITHMS: [(&str, Algorithm); 2] = [("sha256", Algorithm::Sha256), ("sha512", Algorithm::Sha512)];
const ENCODINGS: [(&str, Encoding); 2] = [("hex", Encoding::Hex), ("base64", Encoding::Base64)];

pub(super) fn read(value: &Value<'_>, outside: &Outside<'_>) -> Option<Signing> {
    let mut fields = value.clone().secret_unless_map().fields()?;
    let (standard, plain) = (fields.get("standard"), fields.get("hmac"));
    fields.end();
    if standard.is_none() && plain.is_none() {
        value.wrong(Mismatch::new("`standard` or `hmac`").found("neither"));
        return None;
    }
    let key = |value: Value<'_>| value.secret().read(|text| standard_key(text, outside));
    let standard = match standard {
        None => Some(Vec::new()),
        Some(keys) if keys.is_list() => keys.list(key),
        Some(one) => key(one).map(|key| vec![key]),
    };
    let plain = plain.map_or(Some(None), |plain| read_plain(&plain, outside).map(Some));
    Some(Signing { standard: standard?, plain: plain? })
}

fn read_plain(value: &Value<'_>, outside: &Outside<'_>) -> Option<PlainKey> {
    let mut fields = value.clone().secret_unless_map().fields()?;
    let header = fields.require("header").and_then(|header| {
        let name = header.read(headers::name)?;
        if let Some(doubt) = headers::doubtful(&name) {
            header.warn(doubt);
        }
        Some(name)
    });
    let prefix = fields.read_or("prefix", String::new(), |text| headers::check_value(text).map(|()| text.to_owned()));
    let encoding = fields.read_or("encoding", Encoding::Hex, one_of(&ENCODINGS));
    let algorithm = fields.read_or("algorithm", Algorithm::Sha256, one_of(&ALGORITHMS));
    let key = fields.require("key").map(Value::secret);
    fields.end();
    let (header, prefix, encoding, algorithm) = (header?, prefix?, encoding?, algorithm?);
    key?.read(|text| {
        let (header, prefix) = (header.clone(), prefix.clone());
        match known(text, outside)? {
            Some(key) => Ok(PlainKey::new(header, prefix, encoding, algorithm, &key)?),
            None => Ok(PlainKey::unknown(header, prefix, encoding, text.to_owned())),
        }
    })
}

fn standard_key(text: &str, outside: &Outside<'_>) -> Result<StandardKey, Mismatch> {
    match known(text, outside)? {
        Some(key) => Ok(StandardKey::new(&key)?),
        None => Ok(StandardKey::unknown(text.to_owned())),
    }
}

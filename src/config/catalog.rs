//! Where hooks come from.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::raw::Raw;
use super::{Catalog, CatalogFrom, parse};
use crate::domain::dialect::Dialect;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::{duration, one_of};

const AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24 * 365);

pub(super) fn catalog(raw: &Raw<'_>) -> Option<Catalog> {
    let from = raw.read("catalog.from", one_of(&[("file", CatalogFrom::File), ("redis", CatalogFrom::Redis)]));
    let dialect = raw.read("catalog.dialect", one_of(&Dialect::ALL));
    let cache = raw.read("catalog.cache", parse::path);
    let max_age = raw.read("catalog.max_age", duration(AGES));
    let (from, cache) = (from?, cache?);
    if from == CatalogFrom::Redis && !raw.is_set("redis.url") {
        let mismatch = Mismatch::new("`redis.url` to be set too").found("it unset");
        raw.wrong("catalog.from", mismatch.help("one process without servers takes its hooks from a file"));
        return None;
    }
    if from == CatalogFrom::File && cache.is_some() {
        let mismatch = Mismatch::new("`catalog.from: redis` beside it").found("`file`");
        raw.wrong("catalog.cache", mismatch.help("a file needs no cache"));
        return None;
    }
    Some(Catalog { from, dialect: dialect?, cache, max_age: max_age? })
}

//! Values as pydantic takes them where it is not strict: `"3"`, `3.0` and `yes` are fine.

use std::ops::RangeInclusive;

use super::scalar::Scalar;
use crate::yaml::problem::Mismatch;
use crate::yaml::value::Value;

const YES: [&str; 6] = ["1", "true", "t", "yes", "y", "on"];
const NO: [&str; 6] = ["0", "false", "f", "no", "n", "off"];

pub(super) fn flag(value: &Value<'_>) -> Option<bool> {
    let word =
        Scalar::of(value).filter(|scalar| *scalar != Scalar::Nothing).map(|scalar| scalar.shown().to_lowercase());
    let is = |words: [&str; 6]| word.as_deref().is_some_and(|word| words.contains(&word));
    match (is(YES), is(NO)) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => {
            value.wrong(Mismatch::new("true or false"));
            None
        }
    }
}

pub(super) fn number_within(value: &Value<'_>, range: RangeInclusive<f64>) -> Option<f64> {
    let number = Scalar::of(value).and_then(|scalar| scalar.number()).filter(|number| range.contains(number));
    if number.is_none() {
        value.wrong(Mismatch::new(format!("a number from {} to {}", range.start(), range.end())));
    }
    number
}

pub(super) fn whole_within(value: &Value<'_>, range: RangeInclusive<i128>) -> Option<i128> {
    let whole = match Scalar::of(value) {
        Some(Scalar::Whole(number)) => Some(number),
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and out of range where it is cut")]
        Some(scalar) => scalar.number().filter(|number| number.fract() == 0.0).map(|number| number as i128),
        None => None,
    };
    let whole = whole.filter(|number| range.contains(number));
    if whole.is_none() {
        let end = if *range.end() == i128::MAX { String::new() } else { format!(" to {}", range.end()) };
        value.wrong(Mismatch::new(format!("a whole number from {}{end}", range.start())));
    }
    whole
}

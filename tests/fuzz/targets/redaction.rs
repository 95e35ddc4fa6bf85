//! libFuzzer's way to [`hookfleet_fuzz::redaction`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hookfleet_fuzz::redaction(data));

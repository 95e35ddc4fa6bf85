//! libFuzzer's way to [`hookfleet_fuzz::retry_after`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hookfleet_fuzz::retry_after(data));

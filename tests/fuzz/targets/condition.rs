//! libFuzzer's way to [`hookfleet_fuzz::condition`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hookfleet_fuzz::condition(data));

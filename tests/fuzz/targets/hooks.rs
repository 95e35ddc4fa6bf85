//! libFuzzer's way to [`hookfleet_fuzz::hooks`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hookfleet_fuzz::hooks(data));

//! The upstream's answer to a batch of keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| audience_gateway::fuzzing::upstream(data));

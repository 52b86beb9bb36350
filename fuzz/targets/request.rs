//! A caller's body, as a lookup's and as a purge's.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| audience_gateway::fuzzing::request(data));

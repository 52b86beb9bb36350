//! A request's path.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| audience_gateway::fuzzing::path(data));

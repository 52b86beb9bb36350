//! The body of a write that passes through.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| audience_gateway::fuzzing::write(data));

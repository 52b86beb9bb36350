//! The bytes of a connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| audience_gateway::fuzzing::framing(data));

//! What a caller's headers say about the cache and about waiting.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| audience_gateway::fuzzing::directives(data));

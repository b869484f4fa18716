//! Parses any response of `VFIO_DEVICE_GET_REGION_INFO`.
#![no_main]

#[path = "../../crates/core/tests/kernel_data/rules.rs"]
#[allow(dead_code)]
mod rules;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rules::check_region(bytes);
    rules::check_capabilities(bytes, 32);
});

//! The largest reservation of address space. One test, alone in its process: it uses nearly all of the address space.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::process::Command;

use common::{code, failure};
use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use peerdma_core::ErrorCode;
use peerdma_core::memory::AddressSpaceReservation;

/// Set in the process whose address space is limited.
const LIMITED: &str = "PEERDMA_TEST_LIMITED";

#[test]
fn reserves_up_to_46_bits() {
    if std::env::var_os(LIMITED).is_some() {
        return reserves_in_a_limited_address_space();
    }
    // Twice: mappings made and removed in between must not prevent the second.
    for _ in 0..2 {
        let wide = AddressSpaceReservation::new(46).unwrap();
        assert_eq!(wide.length(), 1 << 46);
        let base = wide.host_va(0, 1).unwrap();
        assert_eq!(base % (1 << 30), 0);
    }
    assert_eq!(AddressSpaceReservation::new(12).unwrap().length(), 4096);
    for width in [0, 11, 58, 60, 63, 64, 65, u32::MAX] {
        assert_eq!(
            code(AddressSpaceReservation::new(width)),
            ErrorCode::InvalidArgument,
            "{width}"
        );
    }
    let error = failure(AddressSpaceReservation::new(47));
    assert_eq!(error.code(), ErrorCode::AddressSpaceLimit);
    assert!(error.message().contains("addressWidth"));
    // Many at once, and mappings made and removed in between.
    let many: Vec<_> = (0..24)
        .map(|_| AddressSpaceReservation::new(40).unwrap())
        .collect();
    drop(many);
    drop(AddressSpaceReservation::new(45).unwrap());

    let child = Command::new(std::env::current_exe().unwrap())
        .env(LIMITED, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

fn reserves_in_a_limited_address_space() {
    setrlimit(Resource::RLIMIT_AS, 8 << 30, 8 << 30).unwrap();
    let error = failure(AddressSpaceReservation::new(40));
    assert_eq!(
        (error.code(), error.errno()),
        (ErrorCode::AddressSpaceLimit, Some(Errno::ENOMEM))
    );
    assert_eq!(error.syscall(), Some("mmap"));
    assert!(error.message().contains("RLIMIT_AS"));
    AddressSpaceReservation::new(31).unwrap();
}

//! Memory slots of a real virtual machine that cannot be made or removed.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::slots::PAGE;
use super::{Exits, Machine, test_machine};
use crate::{Error, ErrorCode, Range};

fn pages(first: u64, count: u64) -> Range {
    Range::new(first * PAGE, count * PAGE).unwrap()
}

fn assert_error(error: &Error, code: ErrorCode, reason: &str) {
    assert_eq!(error.code(), code, "{error}");
    assert!(error.message().contains(reason), "{error}");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn each_refusal_has_its_reason_and_changes_nothing() {
    let exits = Arc::new(Exits::new(1, || {}));
    let machine = Machine::new(exits).unwrap();
    let space = test_machine::reservation(4);
    let map = |range| test_machine::map(&machine, &space, range, 0).map_err(|failed| failed.error);
    map(pages(8, 2)).unwrap();

    let overlapping = map(pages(9, 2)).unwrap_err();
    let reason = "another memory slot has some of these addresses. Unmap it first";
    assert_error(&overlapping, ErrorCode::Overlap, reason);

    let unaligned = map(Range::new(0x800, PAGE).unwrap()).unwrap_err();
    let reason = "a memory slot has whole pages. Align the range";
    assert_error(&unaligned, ErrorCode::Unaligned, reason);

    let failures = machine.unmap(&[pages(8, 1)], false);
    let (_, cut) = failures.first().unwrap();
    let reason =
        "unmapping 0x8000..0x9000 from KVM: the memory slot of 0x8000..0xa000 is partly in it";
    assert_error(cut, ErrorCode::UnmapFailed, reason);
    assert_eq!((cut.errno(), cut.range()), (None, Some(pages(8, 2))));

    assert_eq!(machine.mapping_count(), 1);
    assert!(machine.unmap(&[pages(8, 2)], false).is_empty());
    machine.close().unwrap();
}

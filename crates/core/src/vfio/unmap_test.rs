//! A container's unmaps without a group, and before Linux 5.12.
#![allow(clippy::unwrap_used)]

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::container::Container;
use crate::batch::{Batch, BatchError};
use crate::fake_kernel::{self, Call};
use crate::space_test::{Fixture, PAGE, PAGES, Space, range};
use crate::{Error, ErrorCode, Range, Result};

impl Space for Container {
    const MAP: Call = Call::MapDma;
    const UNMAP: Call = Call::UnmapDma;
    const NAMES_MAPPINGS: bool = false;

    fn fake() -> Self {
        let container = Self::with_descriptor(fake_kernel::descriptor(), true);
        let mut state = container.inner.lock();
        state.iommu_set = true;
        state.groups = 1;
        drop(state);
        container
    }

    fn map(&self, batch: Batch) -> Result<(), BatchError> {
        self.map(batch)
    }

    fn unmap(&self, ranges: &[Range], continue_after_failure: bool) -> Vec<(usize, Error)> {
        self.unmap(ranges, continue_after_failure)
    }

    fn unmap_all(&self) -> Result<()> {
        self.inner.unmap_all()
    }

    fn count(&self) -> usize {
        self.mapping_count()
    }
}

/// Detaches the last group from a container whose mappings remain in the kernel.
fn lose_last_group(container: &Container, unmap: nix::Result<u64>) {
    fake_kernel::expect([(Call::UnsetContainer, Ok(0)), (Call::UnmapDma, unmap)]);
    let group = fake_kernel::descriptor();
    let removed = container.inner.detach(group.as_fd(), 0).unwrap();
    assert!(removed.is_empty());
}

#[test]
fn an_unmap_that_cuts_a_mapping_fails_if_the_kernel_finds_nothing_to_unmap() {
    let fixture = Fixture::<Container>::new();
    fixture.map(0, 2);
    fake_kernel::expect([(Call::UnmapDma, Err(Errno::ENOENT))]);
    let error = fixture.unmap(0, 1).unwrap_err();
    assert_eq!(
        (error.code(), error.errno(), error.range()),
        (
            ErrorCode::UnmapFailed,
            Some(Errno::ENOENT),
            Some(range(0, 2))
        )
    );
    assert_eq!(fixture.space.mapping_count(), 1);
    assert!(fixture.is_leased(0));
    fake_kernel::expect([(Call::UnmapDma, Err(Errno::ENOENT))]);
    fixture.unmap(4, 1).unwrap();
    fake_kernel::expect([(Call::UnmapDma, Ok(2 * PAGE))]);
    fixture.unmap(0, 2).unwrap();
}

#[test]
fn an_unmap_without_a_group_fails_while_mappings_remain_on_record() {
    let fixture = Fixture::<Container>::new();
    fixture.map(2, 2);
    let container = &fixture.space;
    lose_last_group(container, Err(Errno::EBUSY));
    let refused = [
        (Call::UnmapDma, Err(Errno::EBUSY)),
        (Call::UnmapDma, Err(Errno::EBUSY)),
    ];
    fake_kernel::expect(refused);
    for unmapped in [fixture.unmap(0, PAGES), container.inner.unmap_all()] {
        let error = unmapped.unwrap_err();
        assert_eq!(
            (error.code(), error.errno()),
            (ErrorCode::UnmapFailed, Some(Errno::EBUSY))
        );
        assert_eq!(error.range(), Some(range(2, 2)));
    }
    assert_eq!(container.mapping_count(), 1);
    assert!(fixture.is_leased(2));
    // Without a record, there is nothing to unmap.
    fake_kernel::expect([(Call::UnmapDma, Err(Errno::EBUSY))]);
    fixture.unmap(8, 1).unwrap();
    fake_kernel::expect([(Call::UnmapDma, Ok(2 * PAGE))]);
    fixture.unmap(2, 2).unwrap();
    assert_eq!((container.mapping_count(), fake_kernel::unused()), (0, 0));
    assert!(!fixture.is_leased(2));
}

#[test]
fn an_unmap_without_a_group_or_a_mapping_succeeds_without_a_call() {
    let fixture = Fixture::<Container>::new();
    fixture.space.inner.lock().iommu_set = false;
    fake_kernel::expect([(Call::UnmapDma, Err(Errno::EINVAL))]);
    fixture.unmap(0, 1).unwrap();
    fixture.space.inner.unmap_all().unwrap();
    assert_eq!(fake_kernel::unused(), 1);
    fake_kernel::answer(Call::UnmapDma);
}

#[test]
fn an_unmap_all_before_linux_5_12_removes_every_record() {
    let container = Container::with_descriptor(fake_kernel::descriptor(), false);
    let mut state = container.inner.lock();
    state.iommu_set = true;
    drop(state);
    let fixture = Fixture::of(container);
    fixture.map(0, 1);
    fake_kernel::expect([(Call::UnmapDma, Ok(PAGE))]);
    fixture.space.inner.unmap_all().unwrap();
    assert_eq!(fixture.space.mapping_count(), 0);
}

//! An address space's records after an unmap without a mapping, and after the last handle is dropped.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use nix::errno::Errno;

use super::context::Iommufd;
use super::ioas::Ioas;
use super::owners::MemoryOwner;
use crate::batch::{Batch, BatchError, MapRequest, MemorySource};
use crate::dropper::flush;
use crate::fake_kernel::{self, Call};
use crate::memory::{HugePages, MemoryFile, PartPages};
use crate::space_test::{Fixture, PAGE, PAGES, Space, range};
use crate::vfio::Device;
use crate::{Error, ErrorCode, Range, Result};

impl Space for Ioas {
    const MAP: Call = Call::IoasMap;
    const UNMAP: Call = Call::IoasUnmap;
    const NAMES_MAPPINGS: bool = true;

    fn fake() -> Self {
        Self::with_id(&Iommufd::fake(), 1)
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

#[test]
fn an_unmap_all_that_finds_no_mapping_keeps_the_records_of_mappings() {
    let fixture = Fixture::<Ioas>::new();
    let not_found = || fake_kernel::expect([(Call::IoasUnmap, Err(Errno::ENOENT))]);
    not_found();
    fixture.space.inner.unmap_all().unwrap();
    fixture.map(0, 1);
    not_found();
    let error = fixture.space.inner.unmap_all().unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnmapFailed);
    assert_eq!(fixture.space.mapping_count(), 1);
    assert!(fixture.is_leased(0));
    fixture.unmap_all();
}

#[test]
fn the_last_handle_of_an_address_space_releases_the_bars_whatever_size_the_kernel_reports() {
    let fixture = Fixture::<Ioas>::new();
    let device = Device::fake(&[0; 256], false);
    let bar = device.inner().begin_mapping().unwrap();
    fixture.space.inner.change(|state, removed| {
        let owner = MemoryOwner::Bar(bar);
        state.mappings.insert(range(0, 2), owner, removed);
    });
    // The reference of an attached device, without the handle.
    let attached = Arc::clone(&fixture.space.inner);
    assert_eq!(device.close().unwrap_err().code(), ErrorCode::DeviceInUse);
    fake_kernel::expect([(Call::IoasUnmap, Ok(PAGE))]);
    drop(fixture.space);
    flush();
    device.close().unwrap();
    drop(attached);
}

#[test]
fn faults_in_a_file_before_mapping_it_and_leaves_failures_to_the_kernel() {
    let space = Ioas::fake();
    let file = MemoryFile::create(PAGES * PAGE, "ram", HugePages::None).unwrap();
    let map = |pages: u64, answer| {
        let request = MapRequest {
            range: range(0, pages),
            offset: 0,
            source: MemorySource::File(0),
            writable: true,
        };
        let batch = Batch::new(None, vec![file.clone()], vec![request]).unwrap();
        fake_kernel::expect([(Call::IoasMap, answer)]);
        let asked = |bytes: u64| if bytes >= 4 * PAGE { 4 } else { 1 };
        space.map_by(asked, batch)
    };
    let blocks = || {
        let stat = file.with_fd(|fd| nix::sys::stat::fstat(fd).unwrap());
        stat.unwrap().st_blocks
    };
    map(3, Ok(0)).unwrap();
    assert_eq!(blocks(), 0, "a small part is left to the kernel");
    file.write(0, &[1]).unwrap();
    map(3, Ok(0)).unwrap();
    assert_eq!(blocks(), 8, "so is a part that has some pages");
    file.fd().unwrap(); // The caller may have allocated pages with it.
    map(3, Ok(0)).unwrap();
    assert_eq!(blocks(), 8, "also if the caller has the descriptor");
    map(4, Ok(0)).unwrap();
    assert_eq!(blocks(), 4 * 8);
    let failure = map(PAGES + 1, Err(Errno::EINVAL)).unwrap_err();
    assert_eq!(failure.error.code(), ErrorCode::MapFailed);
    assert_eq!(failure.error.errno(), Some(Errno::EINVAL));
    fake_kernel::expect([(Call::IoasUnmap, Ok(0))]);
    space.inner.unmap_all().unwrap();
}

#[test]
fn pages_of_a_file_that_are_not_cleared_are_faulted_in_before_it_is_mapped() {
    let space = Ioas::fake();
    let file = MemoryFile::create(PAGES * PAGE, "ram", HugePages::None).unwrap();
    let present = |file: &MemoryFile| file.pages().unwrap().part(&range(0, 4));
    assert_eq!(present(&file), PartPages::Missing);
    file.fd().unwrap(); // as a caller that allocates pages with it
    let kept = nix::fcntl::FallocateFlags::empty();
    file.with_fd(|fd| nix::fcntl::fallocate(fd, kept, 0, 4 << 12))
        .unwrap()
        .unwrap();
    assert_eq!(present(&file), PartPages::Uncleared);
    let request = |first, pages| MapRequest {
        range: range(first, pages),
        offset: first * PAGE,
        source: MemorySource::File(0),
        writable: true,
    };
    let requests = vec![request(0, 1), request(1, 3)];
    let batch = Batch::new(None, vec![file.clone()], requests).unwrap();
    fake_kernel::expect([(Call::IoasMap, Ok(0)); 2]);
    space.map_by(|_| 1, batch).unwrap();
    assert_eq!(present(&file), PartPages::Complete);
    fake_kernel::expect([(Call::IoasUnmap, Ok(0))]);
    space.inner.unmap_all().unwrap();
}

//! An address space's records after answers of the kernel that it seldom gives.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use nix::errno::Errno;

use super::context::Iommufd;
use super::ioas::{Ioas, Keeps};
use crate::batch::{Batch, MapRequest, Source};
use crate::dropper::settle;
use crate::fake_kernel::{self, Call};
use crate::locked::lock;
use crate::memory::{AddressSpaceReservation, HugePages, MemoryFile};
use crate::vfio::Device;
use crate::{ErrorCode, Range};

const PAGE: u64 = 0x1000;
const PAGES: u64 = 16;

/// An address space, and memory to map in it.
struct Scene {
    ioas: Ioas,
    memory: AddressSpaceReservation,
}

impl Scene {
    fn new() -> Self {
        let memory = AddressSpaceReservation::new(32).unwrap();
        let file = MemoryFile::create(PAGES * PAGE, "ram", HugePages::None).unwrap();
        memory
            .map_file(0, PAGES * PAGE, &file, 0, true, false)
            .unwrap();
        Self {
            ioas: Ioas::with_id(&Iommufd::fake(), 1),
            memory,
        }
    }

    /// Mappings of ranges of pages at the same IOVAs.
    fn batch(&self, ranges: &[(u64, u64)]) -> Batch {
        let request = |(first, pages): &(u64, u64)| MapRequest {
            range: range(*first, *pages),
            offset: first * PAGE,
            source: Source::Memory { fault_in: false },
            writable: true,
        };
        Batch::new(
            Some(&self.memory),
            vec![],
            ranges.iter().map(request).collect(),
        )
        .unwrap()
    }

    fn map(&self, first: u64, pages: u64) {
        fake_kernel::expect([(Call::IoasMap, Ok(0))]);
        self.ioas.map(self.batch(&[(first, pages)])).unwrap();
    }

    /// Unmaps what was refused before. An address space that goes with mappings would leak their memory on purpose.
    fn unmap_all(&self) {
        fake_kernel::expect([(Call::IoasUnmap, Ok(0))]);
        self.ioas.inner.unmap_all().unwrap();
        assert_eq!(self.ioas.mapping_count(), 0);
    }

    fn is_leased(&self, page: u64) -> bool {
        self.memory.unmap(page * PAGE, PAGE).is_err()
    }
}

fn range(first: u64, pages: u64) -> Range {
    Range::new(first * PAGE, pages * PAGE).unwrap()
}

#[test]
fn a_successful_unmap_all_releases_every_record_whatever_size_the_kernel_reports() {
    for answer in [Ok(0), Ok(PAGE), Ok(PAGES * PAGE), Err(Errno::ENOENT)] {
        let scene = Scene::new();
        scene.map(0, 1);
        scene.map(4, 4);
        fake_kernel::expect([(Call::IoasUnmap, answer)]);
        scene.ioas.inner.unmap_all().unwrap();
        assert_eq!(scene.ioas.mapping_count(), 0);
        assert!(!scene.is_leased(0) && !scene.is_leased(4));
    }
}

#[test]
fn the_last_handle_of_an_address_space_releases_the_bars_whatever_size_the_kernel_reports() {
    let scene = Scene::new();
    let device = Device::fake(&[0; 256], false);
    let bar = device.inner().begin_mapping().unwrap();
    let mut state = lock(&scene.ioas.inner.state);
    let mut gone = Vec::new();
    state
        .mappings
        .insert(range(0, 2), Keeps::Bar(bar), &mut gone);
    assert!(gone.is_empty());
    scene.ioas.inner.publish_count(&state);
    drop(state);
    // What an attached device keeps, without the handle.
    let attached = Arc::clone(&scene.ioas.inner);
    assert_eq!(device.close().unwrap_err().code(), ErrorCode::DeviceInUse);
    fake_kernel::expect([(Call::IoasUnmap, Ok(PAGE))]);
    drop(scene.ioas);
    settle();
    device.close().unwrap();
    drop(attached);
}

#[test]
fn a_refused_unmap_all_keeps_every_record() {
    let scene = Scene::new();
    scene.map(0, 1);
    fake_kernel::expect([(Call::IoasUnmap, Err(Errno::EBUSY))]);
    let error = scene.ioas.inner.unmap_all().unwrap_err();
    assert_eq!(
        (error.code(), error.errno()),
        (ErrorCode::UnmapFailed, Some(Errno::EBUSY))
    );
    assert_eq!(scene.ioas.mapping_count(), 1);
    assert!(scene.is_leased(0));
    scene.unmap_all();
}

#[test]
fn a_stale_record_does_not_keep_a_newer_mapping_inside_it_from_being_unmapped() {
    let scene = Scene::new();
    scene.map(0, 8);
    scene.map(2, 2); // accepted, so the kernel has lost the first
    assert_eq!(scene.ioas.mapping_count(), 1);
    assert!(
        !scene.is_leased(0),
        "the stale record is gone, and its lease"
    );
    fake_kernel::expect([(Call::IoasUnmap, Ok(2 * PAGE))]);
    assert_eq!(scene.ioas.unmap(&[range(2, 2)], true).len(), 0);
    assert_eq!((scene.ioas.mapping_count(), fake_kernel::unused()), (0, 0));
    assert!(!scene.is_leased(2));
}

#[test]
fn a_failed_undo_reports_what_is_still_mapped() {
    let scene = Scene::new();
    let requests = scene.batch(&[(0, 1), (2, 1), (4, 1), (6, 1)]);
    fake_kernel::expect([
        (Call::IoasMap, Ok(0)),
        (Call::IoasMap, Ok(0)),
        (Call::IoasMap, Ok(0)),
        (Call::IoasMap, Err(Errno::EEXIST)),
        (Call::IoasUnmap, Ok(PAGE)),
        (Call::IoasUnmap, Err(Errno::ENOENT)),
        (Call::IoasUnmap, Err(Errno::EBUSY)),
    ]);
    let failure = scene.ioas.map(requests).unwrap_err();
    assert_eq!(
        (failure.index, failure.error.range()),
        (3, Some(range(6, 1)))
    );
    let stuck: Vec<_> = failure
        .stuck
        .iter()
        .map(|(index, error)| (*index, error.range()))
        .collect();
    assert_eq!(stuck, [(1, Some(range(2, 1))), (0, Some(range(0, 1)))]);
    assert_eq!(scene.ioas.mapping_count(), 2);
    assert_eq!(
        [0, 2, 4, 6].map(|page| scene.is_leased(page)),
        [true, true, false, false]
    );
    scene.unmap_all();
}

//! The records of address spaces, a container's and iommufd's, after answers of the kernel that it seldom gives.
#![allow(clippy::unwrap_used)]

use nix::errno::Errno;

use crate::batch::{Batch, BatchError, MapRequest, Source};
use crate::fake_kernel::{self, Call};
use crate::memory::{AddressSpaceReservation, HugePages, MemoryFile};
use crate::{Error, ErrorCode, Range, Result};

pub(crate) const PAGE: u64 = 0x1000;
pub(crate) const PAGES: u64 = 16;

pub(crate) trait Space: Sized {
    const MAP: Call;
    const UNMAP: Call;
    /// Whether an error names the mapping that is still there. A container unmaps ranges, not mappings.
    const NAMES_MAPPINGS: bool;

    /// An address space of the fake kernel that can be mapped into.
    fn fake() -> Self;
    fn map(&self, batch: Batch) -> Result<(), BatchError>;
    fn unmap(&self, ranges: &[Range], all: bool) -> Vec<(usize, Error)>;
    fn unmap_all(&self) -> Result<()>;
    fn count(&self) -> usize;
}

/// An address space, and memory to map in it.
pub(crate) struct Scene<S: Space> {
    pub(crate) space: S,
    pub(crate) memory: AddressSpaceReservation,
}

impl<S: Space> Scene<S> {
    pub(crate) fn new() -> Self {
        Self::of(S::fake())
    }

    pub(crate) fn of(space: S) -> Self {
        let memory = AddressSpaceReservation::new(32).unwrap();
        let file = MemoryFile::create(PAGES * PAGE, "ram", HugePages::None).unwrap();
        memory
            .map_file(0, PAGES * PAGE, &file, 0, true, false)
            .unwrap();
        Self { space, memory }
    }

    /// Mappings of ranges of pages at the same IOVAs.
    pub(crate) fn batch(&self, ranges: &[(u64, u64)]) -> Batch {
        let request = |(first, pages): &(u64, u64)| MapRequest {
            range: range(*first, *pages),
            offset: first * PAGE,
            source: Source::Memory { fault_in: false },
            writable: true,
        };
        let requests = ranges.iter().map(request).collect();
        Batch::new(Some(&self.memory), vec![], requests).unwrap()
    }

    pub(crate) fn map(&self, first: u64, pages: u64) {
        fake_kernel::expect([(S::MAP, Ok(0))]);
        self.space.map(self.batch(&[(first, pages)])).unwrap();
    }

    pub(crate) fn unmap(&self, first: u64, pages: u64) -> Result<()> {
        let failures = self.space.unmap(&[range(first, pages)], true);
        let first = failures.into_iter().next();
        first.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Unmaps what was refused before. An address space that goes with mappings would leak their memory on purpose.
    fn unmap_all(&self) {
        fake_kernel::expect([(S::UNMAP, Ok(0))]);
        self.space.unmap_all().unwrap();
        assert_eq!(self.space.count(), 0);
    }

    pub(crate) fn is_leased(&self, page: u64) -> bool {
        self.memory.unmap(page * PAGE, PAGE).is_err()
    }
}

pub(crate) fn range(first: u64, pages: u64) -> Range {
    Range::new(first * PAGE, pages * PAGE).unwrap()
}

/// Makes tests of a case for both address spaces.
macro_rules! for_both {
    ($($case:ident),+ $(,)?) => {
        mod container {
            $(#[test] fn $case() { super::$case::<crate::vfio::Container>(); })+
        }
        mod ioas {
            $(#[test] fn $case() { super::$case::<crate::iommufd::Ioas>(); })+
        }
    };
}

for_both!(
    a_successful_unmap_all_releases_every_record_whatever_size_the_kernel_reports,
    a_refused_unmap_all_keeps_every_record,
    a_stale_record_does_not_keep_a_newer_mapping_inside_it_from_being_unmapped,
    a_failed_undo_reports_what_is_still_mapped,
    a_batch_that_is_undone_reports_the_range_that_could_not_be_mapped,
    an_unmap_of_several_ranges_stops_at_a_failure_or_goes_on,
    mappings_of_two_reservations_are_released_together_each_by_its_own,
);

fn a_successful_unmap_all_releases_every_record_whatever_size_the_kernel_reports<S: Space>() {
    for size in [0, PAGE, PAGES * PAGE] {
        let scene = Scene::<S>::new();
        scene.map(0, 1);
        scene.map(4, 4);
        fake_kernel::expect([(S::UNMAP, Ok(size))]);
        scene.space.unmap_all().unwrap();
        assert_eq!(scene.space.count(), 0);
        assert!(!scene.is_leased(0) && !scene.is_leased(4));
    }
}

fn a_refused_unmap_all_keeps_every_record<S: Space>() {
    let scene = Scene::<S>::new();
    scene.map(0, 1);
    fake_kernel::expect([(S::UNMAP, Err(Errno::EBUSY))]);
    let error = scene.space.unmap_all().unwrap_err();
    let refused = (ErrorCode::UnmapFailed, Some(Errno::EBUSY));
    assert_eq!((error.code(), error.errno()), refused);
    assert_eq!(scene.space.count(), 1);
    assert!(scene.is_leased(0));
    scene.unmap_all();
}

fn a_stale_record_does_not_keep_a_newer_mapping_inside_it_from_being_unmapped<S: Space>() {
    let scene = Scene::<S>::new();
    scene.map(0, 8);
    scene.map(2, 2); // accepted, so the kernel has lost the first
    assert_eq!(scene.space.count(), 1);
    assert!(
        !scene.is_leased(0),
        "the stale record is gone, and its lease"
    );
    fake_kernel::expect([(S::UNMAP, Ok(2 * PAGE))]);
    scene.unmap(0, PAGES).unwrap();
    assert_eq!((scene.space.count(), fake_kernel::unused()), (0, 0));
    assert!(!scene.is_leased(2));
}

fn a_failed_undo_reports_what_is_still_mapped<S: Space>() {
    let scene = Scene::<S>::new();
    let batch = scene.batch(&[(0, 1), (2, 1), (4, 1), (6, 1)]);
    fake_kernel::expect([
        (S::MAP, Ok(0)),
        (S::MAP, Ok(0)),
        (S::MAP, Ok(0)),
        (S::MAP, Err(Errno::EEXIST)),
        (S::UNMAP, Ok(PAGE)),
        (S::UNMAP, Err(Errno::ENOENT)),
        (S::UNMAP, Err(Errno::EBUSY)),
    ]);
    let failure = scene.space.map(batch).unwrap_err();
    assert_eq!(
        (failure.index, failure.error.range()),
        (3, Some(range(6, 1)))
    );
    let named = |page| S::NAMES_MAPPINGS.then(|| range(page, 1));
    let stuck = failure.stuck.iter();
    let stuck: Vec<_> = stuck
        .map(|(index, error)| (*index, error.code(), error.range()))
        .collect();
    let code = ErrorCode::UnmapFailed;
    assert_eq!(stuck, [(1, code, named(2)), (0, code, named(0))]);
    assert_eq!(scene.space.count(), 2);
    assert_eq!(
        [0, 2, 4, 6].map(|page| scene.is_leased(page)),
        [true, true, false, false]
    );
    scene.unmap_all();
}

fn a_batch_that_is_undone_reports_the_range_that_could_not_be_mapped<S: Space>() {
    let scene = Scene::<S>::new();
    let batch = scene.batch(&[(0, 1), (2, 1), (4, 1)]);
    fake_kernel::expect([
        (S::MAP, Ok(0)),
        (S::MAP, Err(Errno::EEXIST)),
        (S::UNMAP, Ok(PAGE)),
    ]);
    let failure = scene.space.map(batch).unwrap_err();
    assert_eq!(
        (failure.index, failure.error.code(), failure.error.range()),
        (1, ErrorCode::MapFailed, Some(range(2, 1)))
    );
    assert_eq!(failure.stuck.len(), 0);
    assert!([0, 2, 4].iter().all(|page| !scene.is_leased(*page)));
}

fn an_unmap_of_several_ranges_stops_at_a_failure_or_goes_on<S: Space>() {
    for (all, mappings) in [(false, 2), (true, 1)] {
        let scene = Scene::<S>::new();
        for page in [0, 2, 4] {
            scene.map(page, 1);
        }
        fake_kernel::expect([(S::UNMAP, Ok(PAGE)), (S::UNMAP, Err(Errno::EBUSY))]);
        fake_kernel::expect(all.then_some((S::UNMAP, Ok(PAGE))));
        let ranges = [range(0, 1), range(2, 1), range(4, 1)];
        let failures = scene.space.unmap(&ranges, all);
        let which: Vec<usize> = failures.iter().map(|(index, _)| *index).collect();
        assert_eq!(which, [1]);
        assert_eq!((scene.space.count(), fake_kernel::unused()), (mappings, 0));
        scene.unmap_all();
    }
}

fn mappings_of_two_reservations_are_released_together_each_by_its_own<S: Space>() {
    let scene = Scene::<S>::new();
    let other = Scene::of(S::fake());
    scene.map(0, 1);
    fake_kernel::expect([(S::MAP, Ok(0))]);
    scene.space.map(other.batch(&[(1, 1)])).unwrap();
    scene.map(2, 1);
    let held = other.batch(&[(0, 4)]);
    fake_kernel::expect([(S::UNMAP, Ok(PAGE)); 3]);
    let ranges = [range(0, 1), range(1, 1), range(2, 1)];
    assert_eq!(scene.space.unmap(&ranges, true).len(), 0);
    assert!(!scene.is_leased(0) && !scene.is_leased(2));
    assert!(other.is_leased(0) && other.is_leased(1));
    drop(held);
    assert!(!other.is_leased(1));
}

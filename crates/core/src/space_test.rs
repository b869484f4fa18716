//! Records of containers and IOAS address spaces after rare results of the kernel.
#![allow(clippy::unwrap_used)]

use nix::errno::Errno;

use crate::batch::{Batch, BatchError, MapRequest, MemorySource};
use crate::fake_kernel::{self, Call};
use crate::memory::{AddressSpaceReservation, HugePages, MemoryFile};
use crate::{Error, ErrorCode, Range, Result};

pub(crate) const PAGE: u64 = 0x1000;
pub(crate) const PAGES: u64 = 16;

pub(crate) trait Space: Sized {
    const MAP: Call;
    const UNMAP: Call;
    /// Whether an error names the mapping that remains. A container unmaps ranges, not mappings.
    const NAMES_MAPPINGS: bool;

    /// Creates an address space of the fake kernel that accepts mappings.
    fn fake() -> Self;
    fn map(&self, batch: Batch) -> Result<(), BatchError>;
    fn unmap(&self, ranges: &[Range], continue_after_failure: bool) -> Vec<(usize, Error)>;
    fn unmap_all(&self) -> Result<()>;
    fn count(&self) -> usize;
}

/// An address space, and memory to map in it.
pub(crate) struct Fixture<S: Space> {
    pub(crate) space: S,
    pub(crate) memory: AddressSpaceReservation,
}

impl<S: Space> Fixture<S> {
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

    /// Creates a batch that maps ranges of pages at equal IOVAs.
    pub(crate) fn batch(&self, ranges: &[(u64, u64)]) -> Batch {
        let request = |(first, pages): &(u64, u64)| MapRequest {
            range: range(*first, *pages),
            offset: first * PAGE,
            source: MemorySource::Memory { fault_in: false },
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

    /// Unmaps the mappings whose unmap failed before. Dropping the address space would leak their memory on purpose.
    pub(crate) fn unmap_all(&self) {
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

/// Defines each test for both address spaces.
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
    a_successful_unmap_all_removes_every_record_whatever_size_the_kernel_reports,
    a_failed_unmap_all_keeps_every_record,
    a_stale_record_does_not_keep_a_newer_mapping_inside_it_from_being_unmapped,
    a_failed_rollback_reports_the_remaining_mappings,
    a_batch_that_is_rolled_back_reports_the_range_that_could_not_be_mapped,
    an_unmap_of_several_ranges_stops_at_a_failure_or_goes_on,
    mappings_of_two_reservations_are_released_by_one_unmap,
);

fn a_successful_unmap_all_removes_every_record_whatever_size_the_kernel_reports<S: Space>() {
    for size in [0, PAGE, PAGES * PAGE] {
        let fixture = Fixture::<S>::new();
        fixture.map(0, 1);
        fixture.map(4, 4);
        fake_kernel::expect([(S::UNMAP, Ok(size))]);
        fixture.space.unmap_all().unwrap();
        assert_eq!(fixture.space.count(), 0);
        assert!(!fixture.is_leased(0) && !fixture.is_leased(4));
    }
}

fn a_failed_unmap_all_keeps_every_record<S: Space>() {
    let fixture = Fixture::<S>::new();
    fixture.map(0, 1);
    fake_kernel::expect([(S::UNMAP, Err(Errno::EBUSY))]);
    let error = fixture.space.unmap_all().unwrap_err();
    let refused = (ErrorCode::UnmapFailed, Some(Errno::EBUSY));
    assert_eq!((error.code(), error.errno()), refused);
    assert_eq!(fixture.space.count(), 1);
    assert!(fixture.is_leased(0));
    fixture.unmap_all();
}

fn a_stale_record_does_not_keep_a_newer_mapping_inside_it_from_being_unmapped<S: Space>() {
    let fixture = Fixture::<S>::new();
    fixture.map(0, 8);
    fixture.map(2, 2); // the kernel accepts it, so the first mapping no longer exists
    assert_eq!(fixture.space.count(), 1);
    assert!(
        !fixture.is_leased(0),
        "the stale record and its lease are removed"
    );
    fake_kernel::expect([(S::UNMAP, Ok(2 * PAGE))]);
    fixture.unmap(0, PAGES).unwrap();
    assert_eq!((fixture.space.count(), fake_kernel::unused()), (0, 0));
    assert!(!fixture.is_leased(2));
}

fn a_failed_rollback_reports_the_remaining_mappings<S: Space>() {
    let fixture = Fixture::<S>::new();
    let batch = fixture.batch(&[(0, 1), (2, 1), (4, 1), (6, 1)]);
    fake_kernel::expect([
        (S::MAP, Ok(0)),
        (S::MAP, Ok(0)),
        (S::MAP, Ok(0)),
        (S::MAP, Err(Errno::EEXIST)),
        (S::UNMAP, Ok(PAGE)),
        (S::UNMAP, Err(Errno::ENOENT)),
        (S::UNMAP, Err(Errno::EBUSY)),
    ]);
    let failure = fixture.space.map(batch).unwrap_err();
    assert_eq!(
        (failure.index, failure.error.range()),
        (3, Some(range(6, 1)))
    );
    let named = |page| S::NAMES_MAPPINGS.then(|| range(page, 1));
    let still_mapped = failure.still_mapped.iter();
    let still_mapped: Vec<_> = still_mapped
        .map(|(index, error)| (*index, error.code(), error.range()))
        .collect();
    let code = ErrorCode::UnmapFailed;
    assert_eq!(still_mapped, [(1, code, named(2)), (0, code, named(0))]);
    assert_eq!(fixture.space.count(), 2);
    assert_eq!(
        [0, 2, 4, 6].map(|page| fixture.is_leased(page)),
        [true, true, false, false]
    );
    fixture.unmap_all();
}

fn a_batch_that_is_rolled_back_reports_the_range_that_could_not_be_mapped<S: Space>() {
    let fixture = Fixture::<S>::new();
    let batch = fixture.batch(&[(0, 1), (2, 1), (4, 1)]);
    fake_kernel::expect([
        (S::MAP, Ok(0)),
        (S::MAP, Err(Errno::EEXIST)),
        (S::UNMAP, Ok(PAGE)),
    ]);
    let failure = fixture.space.map(batch).unwrap_err();
    assert_eq!(
        (failure.index, failure.error.code(), failure.error.range()),
        (1, ErrorCode::MapFailed, Some(range(2, 1)))
    );
    assert_eq!(failure.still_mapped.len(), 0);
    assert!([0, 2, 4].iter().all(|page| !fixture.is_leased(*page)));
}

fn an_unmap_of_several_ranges_stops_at_a_failure_or_goes_on<S: Space>() {
    for (continue_after_failure, mappings) in [(false, 2), (true, 1)] {
        let fixture = Fixture::<S>::new();
        for page in [0, 2, 4] {
            fixture.map(page, 1);
        }
        fake_kernel::expect([(S::UNMAP, Ok(PAGE)), (S::UNMAP, Err(Errno::EBUSY))]);
        fake_kernel::expect(continue_after_failure.then_some((S::UNMAP, Ok(PAGE))));
        let ranges = [range(0, 1), range(2, 1), range(4, 1)];
        let failures = fixture.space.unmap(&ranges, continue_after_failure);
        let failed: Vec<usize> = failures.iter().map(|(index, _)| *index).collect();
        assert_eq!(failed, [1]);
        assert_eq!(
            (fixture.space.count(), fake_kernel::unused()),
            (mappings, 0)
        );
        fixture.unmap_all();
    }
}

fn mappings_of_two_reservations_are_released_by_one_unmap<S: Space>() {
    let fixture = Fixture::<S>::new();
    let other = Fixture::of(S::fake());
    fixture.map(0, 1);
    fake_kernel::expect([(S::MAP, Ok(0))]);
    fixture.space.map(other.batch(&[(1, 1)])).unwrap();
    fixture.map(2, 1);
    let held = other.batch(&[(0, 4)]);
    fake_kernel::expect([(S::UNMAP, Ok(PAGE)); 3]);
    let ranges = [range(0, 1), range(1, 1), range(2, 1)];
    assert_eq!(fixture.space.unmap(&ranges, true).len(), 0);
    assert!(!fixture.is_leased(0) && !fixture.is_leased(2));
    assert!(other.is_leased(0) && other.is_leased(1));
    drop(held);
    assert!(!other.is_leased(1));
}

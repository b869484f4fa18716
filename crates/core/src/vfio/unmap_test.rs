//! A container's records after answers of the kernel that it seldom gives.
#![allow(clippy::unwrap_used)]

use nix::errno::Errno;

use super::container::Container;
use crate::batch::{Batch, MapRequest, Source};
use crate::fake_kernel::{self, Call};
use crate::locked::lock;
use crate::memory::{AddressSpaceReservation, HugePages, MemoryFile};
use crate::{Error, ErrorCode, Range};

const PAGE: u64 = 0x1000;
const PAGES: u64 = 16;

/// A container with an IOMMU and one group, and memory to map in it.
struct Scene {
    container: Container,
    memory: AddressSpaceReservation,
}

impl Scene {
    fn new(unmap_all: bool) -> Self {
        let container = Container::with_descriptor(fake_kernel::descriptor(), unmap_all);
        let mut state = lock(&container.inner.state);
        state.iommu_set = true;
        state.groups = 1;
        drop(state);
        let memory = AddressSpaceReservation::new(32).unwrap();
        let file = MemoryFile::create(PAGES * PAGE, "ram", HugePages::None).unwrap();
        memory
            .map_file(0, PAGES * PAGE, &file, 0, true, false)
            .unwrap();
        Self { container, memory }
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
        fake_kernel::expect([(Call::MapDma, Ok(0))]);
        self.container.map(self.batch(&[(first, pages)])).unwrap();
    }

    /// Detaches the last group from a container whose kernel side keeps its mappings.
    fn lose_last_group(&self, unmap: nix::Result<u64>) {
        fake_kernel::expect([(Call::UnsetContainer, Ok(0)), (Call::UnmapDma, unmap)]);
        let group = fake_kernel::descriptor();
        let gone = self
            .container
            .inner
            .detach(std::os::fd::AsFd::as_fd(&group), 0)
            .unwrap();
        assert!(gone.is_empty());
    }

    fn unmap(&self, first: u64, pages: u64) -> Result<(), Error> {
        let failures = self.container.unmap(&[range(first, pages)], true);
        failures
            .into_iter()
            .next()
            .map_or(Ok(()), |(_, error)| Err(error))
    }

    fn is_leased(&self, page: u64) -> bool {
        self.memory.unmap(page * PAGE, PAGE).is_err()
    }
}

fn range(first: u64, pages: u64) -> Range {
    Range::new(first * PAGE, pages * PAGE).unwrap()
}

#[test]
fn an_unmap_without_a_group_fails_while_mappings_remain_on_record() {
    let scene = Scene::new(true);
    scene.map(2, 2);
    scene.lose_last_group(Err(Errno::EBUSY));
    let container = &scene.container;
    let refused = [
        (Call::UnmapDma, Err(Errno::EBUSY)),
        (Call::UnmapDma, Err(Errno::EBUSY)),
    ];
    fake_kernel::expect(refused);
    for unmapped in [scene.unmap(0, PAGES), container.inner.unmap_all()] {
        let error = unmapped.unwrap_err();
        assert_eq!(
            (error.code(), error.errno()),
            (ErrorCode::UnmapFailed, Some(Errno::EBUSY))
        );
        assert_eq!(error.range(), Some(range(2, 2)));
    }
    assert_eq!(container.mapping_count(), 1);
    assert!(scene.is_leased(2));
    // Where nothing is on record, nothing is left to unmap.
    fake_kernel::expect([(Call::UnmapDma, Err(Errno::EBUSY))]);
    scene.unmap(8, 1).unwrap();
    fake_kernel::expect([(Call::UnmapDma, Ok(2 * PAGE))]);
    scene.unmap(2, 2).unwrap();
    assert_eq!((container.mapping_count(), fake_kernel::unused()), (0, 0));
    assert!(!scene.is_leased(2));
}

#[test]
fn an_unmap_without_a_group_or_a_mapping_succeeds_without_asking_the_kernel() {
    let scene = Scene::new(true);
    lock(&scene.container.inner.state).iommu_set = false;
    fake_kernel::expect([(Call::UnmapDma, Err(Errno::EINVAL))]);
    scene.unmap(0, 1).unwrap();
    scene.container.inner.unmap_all().unwrap();
    assert_eq!(fake_kernel::unused(), 1);
    fake_kernel::answer(Call::UnmapDma);
}

#[test]
fn a_successful_unmap_all_releases_every_record_whatever_size_the_kernel_reports() {
    for (unmap_all, size) in [(true, 0), (true, PAGE), (true, PAGES * PAGE), (false, PAGE)] {
        let scene = Scene::new(unmap_all);
        scene.map(0, 1);
        scene.map(4, 4);
        fake_kernel::expect([(Call::UnmapDma, Ok(size))]);
        scene.container.inner.unmap_all().unwrap();
        assert_eq!(scene.container.mapping_count(), 0);
        assert!(!scene.is_leased(0) && !scene.is_leased(4));
    }
}

#[test]
fn a_refused_unmap_all_keeps_every_record() {
    let scene = Scene::new(true);
    scene.map(0, 1);
    fake_kernel::expect([(Call::UnmapDma, Err(Errno::EINVAL))]);
    let error = scene.container.inner.unmap_all().unwrap_err();
    assert_eq!(
        (error.code(), error.errno()),
        (ErrorCode::UnmapFailed, Some(Errno::EINVAL))
    );
    assert_eq!(scene.container.mapping_count(), 1);
    assert!(scene.is_leased(0));
}

#[test]
fn a_stale_record_does_not_keep_a_newer_mapping_inside_it_from_being_unmapped() {
    let scene = Scene::new(true);
    scene.map(0, 8);
    scene.map(2, 2); // accepted, so the kernel has lost the first
    assert_eq!(scene.container.mapping_count(), 1);
    assert!(
        !scene.is_leased(0),
        "the stale record is gone, and its lease"
    );
    fake_kernel::expect([(Call::UnmapDma, Ok(2 * PAGE))]);
    scene.unmap(0, PAGES).unwrap();
    assert_eq!(scene.container.mapping_count(), 0);
}

#[test]
fn a_failed_undo_reports_what_is_still_mapped() {
    let scene = Scene::new(true);
    let requests = scene.batch(&[(0, 1), (2, 1), (4, 1), (6, 1)]);
    fake_kernel::expect([
        (Call::MapDma, Ok(0)),
        (Call::MapDma, Ok(0)),
        (Call::MapDma, Ok(0)),
        (Call::MapDma, Err(Errno::EEXIST)),
        (Call::UnmapDma, Ok(PAGE)),
        (Call::UnmapDma, Err(Errno::EBUSY)),
        (Call::UnmapDma, Err(Errno::EBUSY)),
    ]);
    let failure = scene.container.map(requests).unwrap_err();
    assert_eq!(
        (failure.index, failure.error.range()),
        (3, Some(range(6, 1)))
    );
    let stuck: Vec<_> = failure
        .stuck
        .iter()
        .map(|(index, error)| (*index, error.code()))
        .collect();
    assert_eq!(
        stuck,
        [(1, ErrorCode::UnmapFailed), (0, ErrorCode::UnmapFailed)]
    );
    assert_eq!(scene.container.mapping_count(), 2);
    assert_eq!(
        [0, 2, 4, 6].map(|page| scene.is_leased(page)),
        [true, true, false, false]
    );
}

#[test]
fn a_batch_that_is_undone_reports_the_range_that_could_not_be_mapped() {
    let scene = Scene::new(true);
    let requests = scene.batch(&[(0, 1), (2, 1), (4, 1)]);
    fake_kernel::expect([
        (Call::MapDma, Ok(0)),
        (Call::MapDma, Err(Errno::EEXIST)),
        (Call::UnmapDma, Ok(PAGE)),
    ]);
    let failure = scene.container.map(requests).unwrap_err();
    assert_eq!(
        (failure.index, failure.error.code(), failure.error.range()),
        (1, ErrorCode::MapFailed, Some(range(2, 1)))
    );
    assert_eq!(failure.stuck.len(), 0);
    assert!([0, 2, 4].iter().all(|page| !scene.is_leased(*page)));
}

#[test]
fn an_unmap_of_several_ranges_stops_at_a_failure_or_goes_on() {
    for (all, expected, mappings) in [(false, vec![1], 2), (true, vec![1], 1)] {
        let scene = Scene::new(true);
        for page in [0, 2, 4] {
            scene.map(page, 1);
        }
        fake_kernel::expect([
            (Call::UnmapDma, Ok(PAGE)),
            (Call::UnmapDma, Err(Errno::EBUSY)),
            (Call::UnmapDma, Ok(PAGE)),
        ]);
        let failures = scene
            .container
            .unmap(&[range(0, 1), range(2, 1), range(4, 1)], all);
        let which: Vec<usize> = failures.iter().map(|(index, _)| *index).collect();
        assert_eq!(which, expected);
        assert_eq!(scene.container.mapping_count(), mappings);
        if !all {
            assert_eq!(fake_kernel::answer(Call::UnmapDma), Some(Ok(PAGE)));
        }
    }
}

#[test]
fn mappings_of_two_reservations_are_released_together_each_by_its_own() {
    let (scene, mut other) = (Scene::new(true), Scene::new(true));
    other.container = scene.container.clone();
    scene.map(0, 1);
    other.map(1, 1);
    scene.map(2, 1);
    let held = other.batch(&[(0, 4)]);
    fake_kernel::expect([(Call::UnmapDma, Ok(3 * PAGE))]);
    scene.unmap(0, 3).unwrap();
    assert!(!scene.is_leased(0) && !scene.is_leased(2));
    assert!(other.is_leased(0) && other.is_leased(1));
    drop(held);
    assert!(!other.is_leased(1));
}

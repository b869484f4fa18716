//! The dropper's thread closes containers, groups and devices that nobody closes, the innermost first.
#![allow(clippy::unwrap_used)]

use super::container::Container;
use super::{Device, Group};
use crate::batch::{Batch, MapRequest, MemorySource};
use crate::dropper::{Gate, QUEUED, flush};
use crate::fake_kernel::{self, Call};
use crate::memory::{AddressSpaceReservation, HugePages, MemoryFile};

const PAGE: u64 = 0x1000;

/// A container, a group, a device, and a mapping.
struct Fixture {
    container: Option<Container>,
    group: Option<Group>,
    device: Option<Device>,
    memory: AddressSpaceReservation,
}

impl Fixture {
    fn new() -> Self {
        let container = Container::with_descriptor(fake_kernel::descriptor(), true);
        let mut state = container.inner.lock();
        state.iommu_set = true;
        state.groups = 1;
        drop(state);
        let group = Group::fake(Some(&container));
        let device = Device::fake_of(&group, &[0; 256], false);
        let memory = AddressSpaceReservation::new(32).unwrap();
        let file = MemoryFile::create(PAGE, "ram", HugePages::None).unwrap();
        memory.map_file(0, PAGE, &file, 0, true, false).unwrap();
        let request = MapRequest {
            range: crate::Range::new(0, PAGE).unwrap(),
            offset: 0,
            source: MemorySource::Memory { fault_in: false },
            writable: true,
        };
        let batch = Batch::new(Some(&memory), vec![], vec![request]).unwrap();
        fake_kernel::expect([(Call::MapDma, Ok(0))]);
        container.map(batch).unwrap();
        QUEUED.take();
        Self {
            container: Some(container),
            group: Some(group),
            device: Some(device),
            memory,
        }
    }

    fn drop_handle(&mut self, handle: char) {
        match handle {
            'c' => drop(self.container.take()),
            'g' => drop(self.group.take()),
            _ => drop(self.device.take()),
        }
    }
}

#[test]
fn the_dropper_unmaps_before_it_detaches_the_group_in_any_order_of_drops() {
    for order in ["cgd", "cdg", "gcd", "gdc", "dcg", "dgc"] {
        let mut fixture = Fixture::new();
        let gate = Gate::close();
        fake_kernel::expect([(Call::UnmapDma, Ok(PAGE)), (Call::UnsetContainer, Ok(0))]);
        for handle in order.chars() {
            fixture.drop_handle(handle);
        }
        assert_eq!(
            fake_kernel::unused(),
            2,
            "{order}: the drop itself makes no call"
        );
        drop(gate);
        flush();
        assert_eq!(fake_kernel::unused(), 0, "{order}");
        fixture.memory.unmap(0, PAGE).unwrap();
    }
}

#[test]
fn a_container_closes_after_its_unclosed_group_is_dropped() {
    let mut fixture = Fixture::new();
    let gate = Gate::close();
    fake_kernel::expect([(Call::UnsetContainer, Ok(0))]);
    fixture.drop_handle('g');
    fixture.drop_handle('d');
    let container = fixture.container.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(gate));
        container.close().unwrap();
    });
    fixture.memory.unmap(0, PAGE).unwrap();
}

#[test]
fn a_container_with_a_group_does_not_close() {
    let fixture = Fixture::new();
    let container = fixture.container.clone().unwrap();
    let code = |container: &Container| container.close().unwrap_err().code();
    assert_eq!(code(&container), crate::ErrorCode::DeviceInUse);
    let gate = Gate::close();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(gate));
        assert_eq!(code(&container), crate::ErrorCode::DeviceInUse);
    });
    fake_kernel::expect([(Call::UnmapDma, Ok(PAGE)), (Call::UnsetContainer, Ok(0))]);
    drop((container, fixture));
    flush();
}

#[test]
fn the_dropper_unmaps_an_unclosed_container_and_keeps_its_group() {
    let mut fixture = Fixture::new();
    fake_kernel::expect([(Call::UnmapDma, Ok(PAGE))]);
    fixture.drop_handle('c');
    flush();
    assert_eq!(fake_kernel::unused(), 0);
    fixture.memory.unmap(0, PAGE).unwrap();
    fake_kernel::expect([(Call::UnsetContainer, Ok(0))]);
    fixture.device.take().unwrap().close().unwrap();
    fixture.group.take().unwrap().close().unwrap();
}

#[test]
fn the_dropper_closes_an_unclosed_device_after_its_last_use() {
    let device = Device::fake(&[0; 256], false);
    let bar = device.inner().begin_mapping().unwrap();
    QUEUED.take();
    drop(device);
    assert_eq!(QUEUED.take(), 0, "a mapping of its BAR owns it");
    drop(bar);
    assert_eq!(QUEUED.take(), 1);
    flush();
}

#[test]
fn closed_objects_queue_nothing_for_the_dropper() {
    let mut fixture = Fixture::new();
    fake_kernel::expect([(Call::UnsetContainer, Ok(0)), (Call::UnmapDma, Ok(PAGE))]);
    for handle in ['d', 'g', 'c'] {
        match handle {
            'd' => fixture.device.as_ref().unwrap().close().unwrap(),
            'g' => fixture.group.as_ref().unwrap().close().unwrap(),
            _ => fixture.container.as_ref().unwrap().close().unwrap(),
        }
        fixture.drop_handle(handle);
    }
    assert_eq!((QUEUED.take(), fake_kernel::unused()), (0, 0));
}

//! Containers, groups and devices that nobody closes: the dropper's thread closes them, from the inside out.
#![allow(clippy::unwrap_used)]

use super::container::Container;
use super::{Device, Group};
use crate::batch::{Batch, MapRequest, Source};
use crate::dropper::{Gate, HANDED_OVER, settle};
use crate::fake_kernel::{self, Call};
use crate::locked::lock;
use crate::memory::{AddressSpaceReservation, HugePages, MemoryFile};

const PAGE: u64 = 0x1000;

/// One of each, and a mapping.
struct Scene {
    container: Option<Container>,
    group: Option<Group>,
    device: Option<Device>,
    memory: AddressSpaceReservation,
}

impl Scene {
    fn new() -> Self {
        let container = Container::with_descriptor(fake_kernel::descriptor(), true);
        let mut state = lock(&container.inner.state);
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
            source: Source::Memory { fault_in: false },
            writable: true,
        };
        let batch = Batch::new(Some(&memory), vec![], vec![request]).unwrap();
        fake_kernel::expect([(Call::MapDma, Ok(0))]);
        container.map(batch).unwrap();
        HANDED_OVER.take();
        Self {
            container: Some(container),
            group: Some(group),
            device: Some(device),
            memory,
        }
    }

    fn forget(&mut self, which: char) {
        match which {
            'c' => drop(self.container.take()),
            'g' => drop(self.group.take()),
            _ => drop(self.device.take()),
        }
    }
}

#[test]
fn the_dropper_unmaps_before_it_detaches_the_group_in_whichever_order_handles_are_forgotten() {
    for order in ["cgd", "cdg", "gcd", "gdc", "dcg", "dgc"] {
        let mut scene = Scene::new();
        let gate = Gate::close();
        fake_kernel::expect([(Call::UnmapDma, Ok(PAGE)), (Call::UnsetContainer, Ok(0))]);
        for which in order.chars() {
            scene.forget(which);
        }
        assert_eq!(fake_kernel::unused(), 2, "{order}: nothing is called here");
        drop(gate);
        settle();
        assert_eq!(fake_kernel::unused(), 0, "{order}");
        scene.memory.unmap(0, PAGE).unwrap();
    }
}

#[test]
fn a_container_closes_when_its_forgotten_group_is_dropped() {
    let mut scene = Scene::new();
    let gate = Gate::close();
    fake_kernel::expect([(Call::UnsetContainer, Ok(0))]);
    scene.forget('g');
    scene.forget('d');
    let container = scene.container.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(gate));
        container.close().unwrap();
    });
    scene.memory.unmap(0, PAGE).unwrap();
}

#[test]
fn a_container_with_a_group_does_not_close() {
    let scene = Scene::new();
    let container = scene.container.clone().unwrap();
    let code = |container: &Container| container.close().unwrap_err().code();
    assert_eq!(code(&container), crate::ErrorCode::DeviceInUse);
    let gate = Gate::close();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(gate));
        assert_eq!(code(&container), crate::ErrorCode::DeviceInUse);
    });
    fake_kernel::expect([(Call::UnmapDma, Ok(PAGE)), (Call::UnsetContainer, Ok(0))]);
    drop((container, scene));
    settle();
}

#[test]
fn a_forgotten_container_with_a_group_is_unmapped_and_keeps_the_group() {
    let mut scene = Scene::new();
    fake_kernel::expect([(Call::UnmapDma, Ok(PAGE))]);
    scene.forget('c');
    settle();
    assert_eq!(fake_kernel::unused(), 0);
    scene.memory.unmap(0, PAGE).unwrap();
    fake_kernel::expect([(Call::UnsetContainer, Ok(0))]);
    scene.device.take().unwrap().close().unwrap();
    scene.group.take().unwrap().close().unwrap();
}

#[test]
fn the_last_use_of_a_forgotten_device_leaves_it_to_the_dropper() {
    let device = Device::fake(&[0; 256], false);
    let bar = device.inner().begin_mapping().unwrap();
    HANDED_OVER.take();
    drop(device);
    assert_eq!(HANDED_OVER.take(), 0, "a placement of its BAR has it");
    drop(bar);
    assert_eq!(HANDED_OVER.take(), 1);
    settle();
}

#[test]
fn what_is_closed_leaves_nothing_to_the_dropper() {
    let mut scene = Scene::new();
    fake_kernel::expect([(Call::UnsetContainer, Ok(0)), (Call::UnmapDma, Ok(PAGE))]);
    for which in ['d', 'g', 'c'] {
        match which {
            'd' => scene.device.as_ref().unwrap().close().unwrap(),
            'g' => scene.group.as_ref().unwrap().close().unwrap(),
            _ => scene.container.as_ref().unwrap().close().unwrap(),
        }
        scene.forget(which);
    }
    assert_eq!((HANDED_OVER.take(), fake_kernel::unused()), (0, 0));
}

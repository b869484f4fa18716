//! Descriptors of other files in place of a VFIO group, a container and an iommufd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::os::fd::AsRawFd;

use common::failure;
use peerdma_core::event::EventFd;
use peerdma_core::iommufd::Iommufd;
use peerdma_core::vfio::{Container, Group};
use peerdma_core::{Descriptor, Error, ErrorCode};

/// Passes a copy of the descriptor to each object, and returns the errors.
fn refusals(fd: i32) -> [Error; 3] {
    let copy = || Descriptor::duplicate(fd).unwrap();
    [
        failure(Group::from_descriptor(copy(), 7)),
        failure(Container::from_descriptor(copy())),
        failure(Iommufd::from_descriptor(copy())),
    ]
}

#[test]
fn rejects_other_files_and_names_them() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let event = EventFd::new().unwrap();
    for (fd, name) in [
        (file.as_raw_fd(), "/dev/null"),
        (event.raw_fd(), "anon_inode:[eventfd]"),
    ] {
        for error in refusals(fd) {
            assert_eq!(error.code(), ErrorCode::InvalidArgument);
            let start = format!("the descriptor is {name}, not ");
            assert!(error.message().starts_with(&start), "{}", error.message());
        }
    }
}

#[test]
fn rejects_a_descriptor_that_is_not_open() {
    for fd in [-1, i32::MAX] {
        assert_eq!(
            failure(Descriptor::duplicate(fd)).code(),
            ErrorCode::InvalidArgument
        );
    }
}

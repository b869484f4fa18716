//! Single accesses of a given width to a device's regions, as registers require.

use std::os::fd::AsFd;
use std::ptr;

use super::device::{Device, DeviceInner, OpenDevice};
use super::info::RegionInfo;
use super::region::{RegionWindow, is_config};
use crate::locked::{lock, read};
use crate::memory::{Window, protection};
use crate::range::{check_aligned, to_offset, to_usize};
use crate::{Error, ErrorCode, Range, Result, host_page_size};

impl Device {
    /// Reads 32 bits at `offset` of a region in one access, through a mapping if the region can be mapped. PCI is
    /// little-endian; the value is in the host's byte order.
    ///
    /// # Errors
    /// `ERR_UNALIGNED` (to 4 bytes), `ERR_NO_SUCH_REGION`, `ERR_OUT_OF_RANGE`, `ERR_BAR_DISABLED` (memory decode is
    /// off, or the device is in D3hot), `ERR_CLOSED`, `ERR_SYSTEM`.
    pub fn read32(&self, index: u32, offset: u64) -> Result<u32> {
        self.inner
            .load(index, offset, |address| {
                // SAFETY: see `load`.
                unsafe { ptr::read_volatile(ptr::with_exposed_provenance::<u32>(address)) }
                    .to_ne_bytes()
            })
            .map(u32::from_le_bytes)
    }

    /// Writes 32 bits at `offset` of a region in one access, through a mapping if the region can be mapped. PCI is
    /// little-endian; the value is in the host's byte order.
    ///
    /// # Errors
    /// As [`read32`](Self::read32).
    pub fn write32(&self, index: u32, offset: u64, value: u32) -> Result<()> {
        self.inner
            .store(index, offset, value.to_le_bytes(), |address| {
                // SAFETY: see `store`.
                unsafe {
                    ptr::write_volatile(
                        ptr::with_exposed_provenance_mut::<u32>(address),
                        value.to_le(),
                    )
                }
            })
    }

    /// Reads 64 bits at `offset` of a region in one access. If the region cannot be mapped, the kernel may split the
    /// access into two of 32 bits.
    ///
    /// # Errors
    /// As [`read32`](Self::read32), aligned to 8 bytes.
    pub fn read64(&self, index: u32, offset: u64) -> Result<u64> {
        self.inner
            .load(index, offset, |address| {
                // SAFETY: see `load`.
                unsafe { ptr::read_volatile(ptr::with_exposed_provenance::<u64>(address)) }
                    .to_ne_bytes()
            })
            .map(u64::from_le_bytes)
    }

    /// Writes 64 bits at `offset` of a region in one access. If the region cannot be mapped, the kernel may split the
    /// access into two of 32 bits.
    ///
    /// # Errors
    /// As [`read64`](Self::read64).
    pub fn write64(&self, index: u32, offset: u64, value: u64) -> Result<()> {
        self.inner
            .store(index, offset, value.to_le_bytes(), |address| {
                // SAFETY: see `store`.
                unsafe {
                    ptr::write_volatile(
                        ptr::with_exposed_provenance_mut::<u64>(address),
                        value.to_le(),
                    )
                }
            })
    }
}

impl DeviceInner {
    /// Reads `N` bytes in one access.
    ///
    /// `mapped` receives an aligned address in a mapping of the region that stays for the call, while memory decode is
    /// on. Writes to config space lock `open` exclusively, so nothing that uses this device turns decode off meanwhile.
    fn load<const N: usize>(
        &self,
        index: u32,
        offset: u64,
        mapped: impl FnOnce(usize) -> [u8; N],
    ) -> Result<[u8; N]> {
        let (region, range) = self.check_access::<N>(index, offset)?;
        let guard = read(&self.open);
        let open = self.expect_open(guard.as_ref())?;
        if region.readable
            && let Some(address) = self.mapped_address(open, index, region, &range)?
        {
            return Ok(mapped(address));
        }
        let mut bytes = [0; N];
        self.read_file(open.fd.as_fd(), index, region, &range, (&mut bytes).into())?;
        Ok(bytes)
    }

    /// Writes `N` bytes in one access; `mapped` as for [`load`](Self::load).
    fn store<const N: usize>(
        &self,
        index: u32,
        offset: u64,
        bytes: [u8; N],
        mapped: impl FnOnce(usize),
    ) -> Result<()> {
        let (region, range) = self.check_access::<N>(index, offset)?;
        if region.writable && !is_config(index) {
            let guard = read(&self.open);
            let open = self.expect_open(guard.as_ref())?;
            if let Some(address) = self.mapped_address(open, index, region, &range)? {
                mapped(address);
                return Ok(());
            }
        }
        self.write_locked(index, region, &range, (&bytes).into())
    }

    fn check_access<const N: usize>(
        &self,
        index: u32,
        offset: u64,
    ) -> Result<(&RegionInfo, Range)> {
        let region = self.region(index)?;
        let width = crate::range::to_u64(N);
        check_aligned(
            offset,
            width,
            format_args!(
                "offset {offset:#x} of region {index} of device {}",
                self.name
            ),
        )?;
        let range = Range::new(offset, width)?;
        self.check_within(index, region, &range)?;
        Ok((region, range))
    }

    /// Returns the address of `range`, and maps its area first if necessary. `None` if it cannot be mapped.
    fn mapped_address(
        &self,
        open: &OpenDevice,
        index: u32,
        region: &RegionInfo,
        range: &Range,
    ) -> Result<Option<usize>> {
        let page = host_page_size()?;
        let area = region.mmap_areas.iter().find(|area| area.contains(range));
        let Some(area) = area.filter(|area| area.start() & page.wrapping_sub(1) == 0) else {
            return Ok(None);
        };
        if !self.is_accessible() {
            let message = format!(
                "{range} of region {index} of device {} is disabled: memory decode is off, or the device is in D3hot",
                self.name
            );
            return Err(Error::new(ErrorCode::BarDisabled, message));
        }
        let within = to_usize(range.start().saturating_sub(area.start()))?;
        let outside = || {
            let message = format!(
                "{range} is not in the mapped {area} of region {index} of device {}",
                self.name
            );
            Error::new(ErrorCode::OutOfRange, message)
        };
        let mut windows = lock(&open.windows);
        if let Some(known) = windows
            .iter()
            .find(|known| known.index == index && known.area == *area)
        {
            return known.window.at(within).map(Some).ok_or_else(outside);
        }
        // A mappable BAR smaller than a page has the page to itself.
        let length = to_usize(
            area.len()
                .checked_next_multiple_of(page)
                .unwrap_or(area.len()),
        )?;
        let offset = to_offset(region.file_offset.saturating_add(area.start()))?;
        let window = Window::new(length, protection(region.writable), open.fd.as_fd(), offset)
            .map_err(|errno| {
                let operation = format!("mapping {area} of region {index} of device {}", self.name);
                Error::os(ErrorCode::System, errno, "mmap", operation)
            })?;
        let address = window.at(within).ok_or_else(outside)?;
        windows.push(RegionWindow {
            index,
            area: *area,
            window,
        });
        Ok(Some(address))
    }
}

//! What JavaScript calls of an IOMMU address space, be it a container's or iommufd's.

/// Adds those methods to a class, whose field `space` is the address space.
macro_rules! space_methods {
    ($class:ident) => {
        #[napi]
        impl $class {
            /// Makes mappings, all or none. A request is four words: IOVA, length, flags (bit 0: writable; bit 1: a
            /// file, which of `files` from bit 32 on; bit 2: faulted in before), and the offset in the reservation or
            /// the file. Returns what could not be mapped, and after it what was mapped before it and could not be
            /// unmapped again.
            #[napi]
            pub fn map(
                &self,
                reservation: Option<&NativeReservation>,
                files: Vec<ClassInstance<'_, NativeMemoryFile>>,
                requests: BigUint64ArraySlice<'_>,
            ) -> napi::Result<Vec<NativeFailure>> {
                let batch = read_batch(reservation, &files, &requests)?;
                Ok(mapped(self.space.map(batch)))
            }

            /// The same on a worker thread.
            #[napi(ts_return_type = "Promise<Array<NativeFailure>>")]
            pub fn map_async(
                &self,
                reservation: Option<&NativeReservation>,
                files: Vec<ClassInstance<'_, NativeMemoryFile>>,
                requests: BigUint64ArraySlice<'_>,
            ) -> napi::Result<AsyncTask<Failing>> {
                let space = self.space.clone();
                let batch = read_batch(reservation, &files, &requests)?;
                let map = move || Ok(mapped(space.map(batch)));
                Ok(Work::make(map, std::convert::identity))
            }

            /// Removes the mappings that lie wholly in ranges, pairs of start and length, one after another. Returns
            /// which of the ranges failed; without `all` it stops at the first.
            #[napi]
            pub fn unmap(
                &self,
                ranges: BigUint64ArraySlice<'_>,
                all: bool,
            ) -> napi::Result<Vec<NativeFailure>> {
                Ok(failures(self.space.unmap(&read_ranges(&ranges)?, all)))
            }

            /// The same on a worker thread.
            #[napi(ts_return_type = "Promise<Array<NativeFailure>>")]
            pub fn unmap_async(
                &self,
                ranges: BigUint64ArraySlice<'_>,
                all: bool,
            ) -> napi::Result<AsyncTask<Failing>> {
                let space = self.space.clone();
                let ranges = read_ranges(&ranges)?;
                let unmap = move || Ok(failures(space.unmap(&ranges, all)));
                Ok(Work::make(unmap, std::convert::identity))
            }

            /// How many mappings are on record.
            #[napi(getter, ts_return_type = "number")]
            pub fn mapping_count(&self) -> Index {
                Index(u64::try_from(self.space.mapping_count()).unwrap_or(u64::MAX))
            }

            /// Starts or ends logging which pages devices may have written, on a worker thread.
            #[napi(ts_return_type = "Promise<void>")]
            pub fn set_dirty_tracking(&self, on: bool) -> AsyncTask<Work> {
                let space = self.space.clone();
                Work::run(move || space.set_dirty_tracking(on))
            }

            /// A bit for each page, set where a device may have written it since the last call. Read on a worker
            /// thread.
            #[napi(ts_return_type = "Promise<BigUint64Array>")]
            pub fn dirty_pages(
                &self,
                #[napi(ts_arg_type = "bigint")] iova: U64,
                #[napi(ts_arg_type = "bigint")] length: U64,
                #[napi(ts_arg_type = "bigint")] page_size: U64,
            ) -> napi::Result<AsyncTask<Work<Vec<u64>, Words>>> {
                let range = Range::new(iova.0, length.0).map_err(to_js)?;
                let space = self.space.clone();
                let read = move || space.dirty_pages(&range, page_size.0);
                Ok(Work::make(read, Words))
            }

            /// Closes it; refuses while a group or device is attached.
            #[napi]
            pub fn close(&self) -> napi::Result<()> {
                self.space.close().map_err(to_js)
            }

            /// The same on a worker thread.
            #[napi(ts_return_type = "Promise<void>")]
            pub fn close_async(&self) -> AsyncTask<Work> {
                let space = self.space.clone();
                Work::run(move || space.close())
            }
        }
    };
}

pub(crate) use space_methods;

//! The heap of a component: a piece of its first memory, and what it asks the host for after that.
//!
//! The allocator of the standard library asks for more memory with the first thing that it
//! allocates. To the host a memory that grows is dear: the protection of its pages changes when it
//! grows, and again when its place is given to the next call. Most calls need little, so they are
//! served from a static piece that is there from the start, by moving a mark.
//!
//! Deliberately absent: a list of what was freed in the piece. Only the last thing is taken back;
//! an instance that serves many calls fills the piece once and then has the standard allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};

/// The piece: several times what a call with a small payload allocates. Pages of it that are not
/// touched cost nothing.
const BYTES: usize = 256 << 10;

#[repr(align(16))]
struct Piece(UnsafeCell<[u8; BYTES]>);

/// The allocator.
pub(crate) struct Heap {
    piece: Piece,
    /// How much of the piece is taken.
    taken: Cell<usize>,
}

#[allow(unsafe_code, reason = "a component has one thread: nothing is shared")]
unsafe impl Sync for Heap {}

impl Heap {
    #[allow(clippy::large_stack_arrays, reason = "it is made for a static")]
    pub(crate) const fn new() -> Self {
        Self { piece: Piece(UnsafeCell::new([0; BYTES])), taken: Cell::new(0) }
    }

    fn start(&self) -> usize {
        self.piece.0.get().addr()
    }

    /// Where in the piece an address is; none when it is not in it.
    fn offset(&self, pointer: *mut u8) -> Option<usize> {
        let offset = pointer.addr().wrapping_sub(self.start());
        (offset < BYTES).then_some(offset)
    }

    /// Where something of this layout would begin, and where it would end, if it fits.
    fn place(&self, layout: Layout) -> Option<(usize, usize)> {
        let align = layout.align();
        let begin = self.start().checked_add(self.taken.get())?.checked_next_multiple_of(align)?;
        let begin = begin - self.start();
        let end = begin.checked_add(layout.size())?;
        (end <= BYTES).then_some((begin, end))
    }
}

#[allow(
    unsafe_code,
    reason = "an allocator: each block of the piece is handed out once, because the mark only goes \
              back over the last one when that is given back; the rest is the standard allocator's"
)]
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.place(layout) {
            Some((begin, end)) => {
                self.taken.set(end);
                self.piece.0.get().cast::<u8>().wrapping_add(begin)
            }
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.offset(pointer) {
            Some(begin) if begin + layout.size() == self.taken.get() => self.taken.set(begin),
            Some(_) => {}
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(begin) = self.offset(pointer) else {
            return unsafe { System.realloc(pointer, layout, size) };
        };
        let is_last = begin + layout.size() == self.taken.get();
        if is_last && size <= BYTES - begin {
            self.taken.set(begin + size);
            return pointer;
        }
        if size <= layout.size() {
            return pointer;
        }
        // The layout was valid with the size before; one that is not is the caller's to see to.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            unsafe { std::ptr::copy_nonoverlapping(pointer, moved, layout.size()) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("a layout")
    }

    #[test]
    #[allow(unsafe_code, reason = "what is tested is unsafe")]
    fn blocks_are_apart_aligned_and_kept_whole() {
        let heap = Heap::new();
        let mut blocks: Vec<(*mut u8, Layout, u8)> = Vec::new();
        // More than the piece has, of all sizes and alignments, a part given back or made larger.
        for number in 0..4_000_usize {
            let size = number * 37 % 300 + 1;
            let layout = layout(size, 1 << (number % 5));
            let fill = u8::try_from(number % 251).expect("small");
            let pointer = unsafe { heap.alloc(layout) };
            assert_eq!(pointer.addr() % layout.align(), 0);
            unsafe { pointer.write_bytes(fill, size) };
            blocks.push((pointer, layout, fill));
            match number % 7 {
                3 => {
                    let (pointer, layout, fill) = blocks.pop().expect("the last");
                    let size = layout.size() * 2;
                    let moved = unsafe { heap.realloc(pointer, layout, size) };
                    unsafe { moved.write_bytes(fill, size) };
                    let larger = Layout::from_size_align(size, layout.align()).expect("a layout");
                    blocks.push((moved, larger, fill));
                }
                5 => {
                    let (pointer, layout, _) = blocks.swap_remove(number % blocks.len());
                    unsafe { heap.dealloc(pointer, layout) };
                }
                _ => {}
            }
        }
        let inside = blocks.iter().filter(|(pointer, ..)| heap.offset(*pointer).is_some()).count();
        assert!(
            inside > 0 && inside < blocks.len(),
            "both the piece and what is after it are used"
        );
        for (pointer, layout, fill) in blocks {
            let block = unsafe { std::slice::from_raw_parts(pointer, layout.size()) };
            assert!(block.iter().all(|byte| *byte == fill));
            unsafe { heap.dealloc(pointer, layout) };
        }
    }

    #[test]
    #[allow(unsafe_code, reason = "what is tested is unsafe")]
    fn the_last_block_grows_where_it_is_and_is_taken_back() {
        let heap = Heap::new();
        let small = layout(10, 1);
        let pointer = unsafe { heap.alloc(small) };
        let grown = unsafe { heap.realloc(pointer, small, 1_000) };
        assert_eq!(grown, pointer);
        unsafe { heap.dealloc(grown, layout(1_000, 1)) };
        assert_eq!(heap.taken.get(), 0);
    }
}

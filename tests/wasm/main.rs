//! What Envoy loads, looked at from outside: which calls it takes, and how its memory is given out.

use std::alloc::{GlobalAlloc, Layout};
use std::fs;

use proptest::prelude::*;
use weir_lab::{artifact, exports};

#[allow(dead_code)]
#[path = "../../src/pools.rs"]
mod pools;

use pools::Pools;

/// Envoy enters the VM for whatever is exported: a request's body in pieces, its trailers, its end.
#[test]
fn envoy_enters_the_vm_for_nothing_that_weir_has_nothing_to_say_to() {
    let wasm = fs::read(artifact::wasm().unwrap()).unwrap();
    let mut exports = exports::names(&wasm).unwrap();
    exports.sort_unstable();
    assert_eq!(exports, artifact::EXPORTS);
}

/// A block that is in somebody's hands, and what they wrote all over it.
struct Held {
    block: *mut u8,
    layout: Layout,
    mark: u8,
}

impl Held {
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the block was allocated by this layout, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.block, self.layout.size()) }
    }

    fn is_untouched(&mut self, len: usize) -> bool {
        let mark = self.mark;
        self.bytes()[..len].iter().all(|byte| *byte == mark)
    }
}

proptest! {
    /// Whatever is allocated, grown, shrunk and freed in whatever order: every block is aligned and
    /// large enough, and holds what its owner wrote.
    #[test]
    fn blocks_are_their_owners_alone(
        steps in prop::collection::vec((1usize..5000, 0u32..7, any::<prop::sample::Index>(), 0..3), 1..300)
    ) {
        let pools = Pools::new();
        let mut held: Vec<Held> = Vec::new();
        for (mark, (size, align, whose, what)) in steps.into_iter().enumerate() {
            let mut own = if what == 0 || held.is_empty() {
                let layout = Layout::from_size_align(size, 1 << align).unwrap();
                // SAFETY: the layout is not empty.
                let block = unsafe { pools.alloc(layout) };
                Held { block, layout, mark: 0 }
            } else {
                let at = whose.index(held.len());
                let mut own = held.swap_remove(at);
                prop_assert!(own.is_untouched(own.layout.size()));
                if what == 1 {
                    // SAFETY: it is given up by the layout that it was allocated by.
                    unsafe { pools.dealloc(own.block, own.layout) };
                    continue;
                }
                // SAFETY: the same, and the size is valid.
                own.block = unsafe { pools.realloc(own.block, own.layout, size) };
                let kept = own.layout.size().min(size);
                own.layout = Layout::from_size_align(size, own.layout.align()).unwrap();
                prop_assert!(own.is_untouched(kept));
                own
            };
            prop_assert!((own.block as usize).is_multiple_of(own.layout.align()));
            own.mark = mark as u8;
            own.bytes().fill(mark as u8);
            held.push(own);
        }
        for mut own in held {
            prop_assert!(own.is_untouched(own.layout.size()));
        }
    }
}

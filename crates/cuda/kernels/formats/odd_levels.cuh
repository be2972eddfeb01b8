// IQ3_S, IQ1_S and IQ1_M.
#include "lattice.cuh"
template <int I> INLINE u32 word(const Raw& r) {
    return levels(nibbles<I>(r.q), 0x87858381u, 0x8f8d8b89u, 0x797b7d7fu, 0x71737577u);
}

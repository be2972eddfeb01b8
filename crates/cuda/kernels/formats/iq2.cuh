// IQ2_XXS, IQ2_XS and IQ2_S.
#include "lattice.cuh"
template <int I> INLINE u32 word(const Raw& r) {
    return levels(nibbles<I>(r.q), 0x78ab9988u, 0x80805567u, 0x80808080u, 0x80808080u);
}

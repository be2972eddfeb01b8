// IQ3_XXS.
#include "lattice.cuh"
template <int I> INLINE u32 word(const Raw& r) {
    return levels(nibbles<I>(r.q), 0x9c948c84u, 0xbeb4aca4u, 0x646c747cu, 0x424c545cu);
}

// language: metal3.1
#include <metal_stdlib>
#include <simd/simd.h>

using metal::uint;

struct _mslBufferSizes {
    uint size0;
    uint size1;
    uint size2;
    uint size3;
    uint size4;
};

typedef float V;
typedef metal::float4 V4_;
typedef metal::uint4 Quants;
struct Raw {
    Quants q;
    uint scale;
    uint shift;
    uint factors;
    char _pad4[4];
};
struct Scale {
    V d;
    V m;
};
typedef Quants type_3[1];
typedef uint type_4[1];
typedef float type_5[1];
struct Immediates {
    uint chunks;
    uint supers;
    uint cols;
    uint rows;
    uint x_stride;
    uint out_stride;
    uint out_first;
};
struct type_6 {
    float inner[1024];
};

metal::float2 half2_(
    uint w
) {
    return float2(as_type<half2>(w));
}

V4_ bytes4_(
    uint w_1
) {
    return V4_(static_cast<float>(w_1 & 255u), static_cast<float>((w_1 >> 16u) & 255u), static_cast<float>((w_1 >> 8u) & 255u), static_cast<float>(w_1 >> 24u));
}

V4_ bytes4_less(
    uint w_2,
    V offset
) {
    V4_ _e2 = bytes4_(w_2);
    return _e2 - metal::float4(offset);
}

V4_ low_nibbles4_less(
    uint w_3,
    V offset_1
) {
    V4_ _e4 = bytes4_(w_3 & 252645135u);
    return _e4 - metal::float4(offset_1);
}

V4_ high_nibbles4_less(
    uint w_4,
    V offset_2
) {
    V4_ _e6 = bytes4_((w_4 >> 4u) & 252645135u);
    return _e6 - metal::float4(offset_2);
}

V4_ low_quad(
    uint w_5,
    Scale scale
) {
    V4_ _e3 = low_nibbles4_less(w_5, 0.0);
    return metal::fma(_e3, metal::float4(scale.d), metal::float4(-(scale.m)));
}

V4_ values0_(
    Raw raw,
    Scale scale_1
) {
    V4_ _e4 = low_quad(raw.q.x, scale_1);
    return _e4;
}

V4_ high_quad(
    uint w_6,
    Scale scale_2
) {
    V4_ _e3 = high_nibbles4_less(w_6, 0.0);
    return metal::fma(_e3, metal::float4(scale_2.d), metal::float4(-(scale_2.m)));
}

V4_ values1_(
    Raw raw_1,
    Scale scale_3
) {
    V4_ _e4 = high_quad(raw_1.q.x, scale_3);
    return _e4;
}

V4_ values2_(
    Raw raw_2,
    Scale scale_4
) {
    V4_ _e4 = low_quad(raw_2.q.y, scale_4);
    return _e4;
}

V4_ values3_(
    Raw raw_3,
    Scale scale_5
) {
    V4_ _e4 = high_quad(raw_3.q.y, scale_5);
    return _e4;
}

V4_ values4_(
    Raw raw_4,
    Scale scale_6
) {
    V4_ _e4 = low_quad(raw_4.q.z, scale_6);
    return _e4;
}

V4_ values5_(
    Raw raw_5,
    Scale scale_7
) {
    V4_ _e4 = high_quad(raw_5.q.z, scale_7);
    return _e4;
}

V4_ values6_(
    Raw raw_6,
    Scale scale_8
) {
    V4_ _e4 = low_quad(raw_6.q.w, scale_8);
    return _e4;
}

V4_ values7_(
    Raw raw_7,
    Scale scale_9
) {
    V4_ _e4 = high_quad(raw_7.q.w, scale_9);
    return _e4;
}

Scale scale_of(
    Raw raw_8
) {
    uint both = raw_8.scale >> raw_8.shift;
    metal::float2 factors = float2(as_type<half2>(raw_8.factors));
    return Scale {static_cast<float>(factors.x * static_cast<float>(both & 255u)), static_cast<float>(factors.y * static_cast<float>((both >> 8u) & 255u))};
}

Raw load_raw(
    uint tile,
    uint lane_1,
    uint super_index,
    device type_3 const& quants,
    device type_4 const& scales,
    device type_4 const& supers,
    constant _mslBufferSizes& _buffer_sizes
) {
    Quants _e8 = quants[(tile * 32u) + lane_1];
    uint _e16 = scales[(tile * 16u) + (lane_1 >> 1u)];
    uint _e23 = supers[super_index];
    return Raw {_e8, _e16, (lane_1 & 1u) * 16u, _e23};
}

void setup(
    uint local_index
) {
    return;
}

float x_value(
    uint token,
    uint col,
    device type_5 const& x,
    constant Immediates& imm,
    constant _mslBufferSizes& _buffer_sizes
) {
    uint _e5 = imm.x_stride;
    float _e9 = x[(token * _e5) + col];
    return _e9;
}

metal::float4 x_values(
    uint token_1,
    uint col_1,
    device type_5 const& x,
    constant Immediates& imm,
    constant _mslBufferSizes& _buffer_sizes
) {
    float _e2 = x_value(token_1, col_1, x, imm, _buffer_sizes);
    float _e5 = x_value(token_1, col_1 + 1u, x, imm, _buffer_sizes);
    float _e8 = x_value(token_1, col_1 + 2u, x, imm, _buffer_sizes);
    float _e11 = x_value(token_1, col_1 + 3u, x, imm, _buffer_sizes);
    return metal::float4(_e2, _e5, _e8, _e11);
}
uint naga_mod(uint lhs, uint rhs) {
    return lhs % metal::select(rhs, 1u, rhs == 0u);
}

uint naga_div(uint lhs, uint rhs) {
    return lhs / metal::select(rhs, 1u, rhs == 0u);
}


struct main_Input {
};
[[max_total_threads_per_threadgroup(256)]] kernel void main_(
  metal::uint3 group [[threadgroup_position_in_grid]]
, uint lane [[thread_index_in_threadgroup]]
, device type_3 const& quants [[user(fake0)]]
, device type_4 const& scales [[user(fake0)]]
, device type_4 const& supers [[user(fake0)]]
, device type_5 const& x [[user(fake0)]]
, device type_5& out [[user(fake0)]]
, constant Immediates& imm [[user(fake0)]]
, threadgroup type_6& sums
, constant _mslBufferSizes& _buffer_sizes [[user(fake0)]]
) {
    if (lane == 0u) {
        sums = {};
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    metal::float4 sum0_ = metal::float4(0.0);
    metal::float4 sum1_ = metal::float4(0.0);
    metal::float4 sum2_ = metal::float4(0.0);
    metal::float4 sum3_ = metal::float4(0.0);
    uint chunk = {};
    float total = 0.0;
    uint i = 0u;
    setup(lane);
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    uint block = naga_mod(lane, 32u);
    uint row = naga_div(block, 2u);
    uint first_token = group.y * 4u;
    chunk = naga_div(lane, 32u);
    uint2 loop_bound = uint2(4294967295u);
    bool loop_init = true;
    while(true) {
        if (metal::all(loop_bound == uint2(0u))) { break; }
        loop_bound -= uint2(loop_bound.y == 0u, 1u);
        if (!loop_init) {
            uint _e290 = chunk;
            chunk = _e290 + 8u;
        }
        loop_init = false;
        uint _e24 = chunk;
        uint _e27 = imm.chunks;
        if (_e24 < _e27) {
        } else {
            break;
        }
        {
            uint _e32 = imm.chunks;
            uint _e34 = chunk;
            uint _e39 = imm.supers;
            uint _e41 = chunk;
            Raw _e48 = load_raw((group.x * _e32) + _e34, block, (((group.x * _e39) + naga_div(_e41, 4u)) * 16u) + row, quants, scales, supers, _buffer_sizes);
            Scale _e49 = scale_of(_e48);
            uint _e50 = chunk;
            uint col_2 = (_e50 * 64u) + (naga_mod(block, 2u) * 32u);
            {
                V4_ _e58 = values0_(_e48, _e49);
                metal::float4 _e63 = x_values(first_token + 0u, col_2 + 0u, x, imm, _buffer_sizes);
                metal::float4 _e64 = sum0_;
                sum0_ = metal::fma(_e58, _e63, _e64);
                metal::float4 _e70 = x_values(first_token + 1u, col_2 + 0u, x, imm, _buffer_sizes);
                metal::float4 _e71 = sum1_;
                sum1_ = metal::fma(_e58, _e70, _e71);
                metal::float4 _e77 = x_values(first_token + 2u, col_2 + 0u, x, imm, _buffer_sizes);
                metal::float4 _e78 = sum2_;
                sum2_ = metal::fma(_e58, _e77, _e78);
                metal::float4 _e84 = x_values(first_token + 3u, col_2 + 0u, x, imm, _buffer_sizes);
                metal::float4 _e85 = sum3_;
                sum3_ = metal::fma(_e58, _e84, _e85);
            }
            {
                V4_ _e87 = values1_(_e48, _e49);
                metal::float4 _e92 = x_values(first_token + 0u, col_2 + 4u, x, imm, _buffer_sizes);
                metal::float4 _e93 = sum0_;
                sum0_ = metal::fma(_e87, _e92, _e93);
                metal::float4 _e99 = x_values(first_token + 1u, col_2 + 4u, x, imm, _buffer_sizes);
                metal::float4 _e100 = sum1_;
                sum1_ = metal::fma(_e87, _e99, _e100);
                metal::float4 _e106 = x_values(first_token + 2u, col_2 + 4u, x, imm, _buffer_sizes);
                metal::float4 _e107 = sum2_;
                sum2_ = metal::fma(_e87, _e106, _e107);
                metal::float4 _e113 = x_values(first_token + 3u, col_2 + 4u, x, imm, _buffer_sizes);
                metal::float4 _e114 = sum3_;
                sum3_ = metal::fma(_e87, _e113, _e114);
            }
            {
                V4_ _e116 = values2_(_e48, _e49);
                metal::float4 _e121 = x_values(first_token + 0u, col_2 + 8u, x, imm, _buffer_sizes);
                metal::float4 _e122 = sum0_;
                sum0_ = metal::fma(_e116, _e121, _e122);
                metal::float4 _e128 = x_values(first_token + 1u, col_2 + 8u, x, imm, _buffer_sizes);
                metal::float4 _e129 = sum1_;
                sum1_ = metal::fma(_e116, _e128, _e129);
                metal::float4 _e135 = x_values(first_token + 2u, col_2 + 8u, x, imm, _buffer_sizes);
                metal::float4 _e136 = sum2_;
                sum2_ = metal::fma(_e116, _e135, _e136);
                metal::float4 _e142 = x_values(first_token + 3u, col_2 + 8u, x, imm, _buffer_sizes);
                metal::float4 _e143 = sum3_;
                sum3_ = metal::fma(_e116, _e142, _e143);
            }
            {
                V4_ _e145 = values3_(_e48, _e49);
                metal::float4 _e150 = x_values(first_token + 0u, col_2 + 12u, x, imm, _buffer_sizes);
                metal::float4 _e151 = sum0_;
                sum0_ = metal::fma(_e145, _e150, _e151);
                metal::float4 _e157 = x_values(first_token + 1u, col_2 + 12u, x, imm, _buffer_sizes);
                metal::float4 _e158 = sum1_;
                sum1_ = metal::fma(_e145, _e157, _e158);
                metal::float4 _e164 = x_values(first_token + 2u, col_2 + 12u, x, imm, _buffer_sizes);
                metal::float4 _e165 = sum2_;
                sum2_ = metal::fma(_e145, _e164, _e165);
                metal::float4 _e171 = x_values(first_token + 3u, col_2 + 12u, x, imm, _buffer_sizes);
                metal::float4 _e172 = sum3_;
                sum3_ = metal::fma(_e145, _e171, _e172);
            }
            {
                V4_ _e174 = values4_(_e48, _e49);
                metal::float4 _e179 = x_values(first_token + 0u, col_2 + 16u, x, imm, _buffer_sizes);
                metal::float4 _e180 = sum0_;
                sum0_ = metal::fma(_e174, _e179, _e180);
                metal::float4 _e186 = x_values(first_token + 1u, col_2 + 16u, x, imm, _buffer_sizes);
                metal::float4 _e187 = sum1_;
                sum1_ = metal::fma(_e174, _e186, _e187);
                metal::float4 _e193 = x_values(first_token + 2u, col_2 + 16u, x, imm, _buffer_sizes);
                metal::float4 _e194 = sum2_;
                sum2_ = metal::fma(_e174, _e193, _e194);
                metal::float4 _e200 = x_values(first_token + 3u, col_2 + 16u, x, imm, _buffer_sizes);
                metal::float4 _e201 = sum3_;
                sum3_ = metal::fma(_e174, _e200, _e201);
            }
            {
                V4_ _e203 = values5_(_e48, _e49);
                metal::float4 _e208 = x_values(first_token + 0u, col_2 + 20u, x, imm, _buffer_sizes);
                metal::float4 _e209 = sum0_;
                sum0_ = metal::fma(_e203, _e208, _e209);
                metal::float4 _e215 = x_values(first_token + 1u, col_2 + 20u, x, imm, _buffer_sizes);
                metal::float4 _e216 = sum1_;
                sum1_ = metal::fma(_e203, _e215, _e216);
                metal::float4 _e222 = x_values(first_token + 2u, col_2 + 20u, x, imm, _buffer_sizes);
                metal::float4 _e223 = sum2_;
                sum2_ = metal::fma(_e203, _e222, _e223);
                metal::float4 _e229 = x_values(first_token + 3u, col_2 + 20u, x, imm, _buffer_sizes);
                metal::float4 _e230 = sum3_;
                sum3_ = metal::fma(_e203, _e229, _e230);
            }
            {
                V4_ _e232 = values6_(_e48, _e49);
                metal::float4 _e237 = x_values(first_token + 0u, col_2 + 24u, x, imm, _buffer_sizes);
                metal::float4 _e238 = sum0_;
                sum0_ = metal::fma(_e232, _e237, _e238);
                metal::float4 _e244 = x_values(first_token + 1u, col_2 + 24u, x, imm, _buffer_sizes);
                metal::float4 _e245 = sum1_;
                sum1_ = metal::fma(_e232, _e244, _e245);
                metal::float4 _e251 = x_values(first_token + 2u, col_2 + 24u, x, imm, _buffer_sizes);
                metal::float4 _e252 = sum2_;
                sum2_ = metal::fma(_e232, _e251, _e252);
                metal::float4 _e258 = x_values(first_token + 3u, col_2 + 24u, x, imm, _buffer_sizes);
                metal::float4 _e259 = sum3_;
                sum3_ = metal::fma(_e232, _e258, _e259);
            }
            {
                V4_ _e261 = values7_(_e48, _e49);
                metal::float4 _e266 = x_values(first_token + 0u, col_2 + 28u, x, imm, _buffer_sizes);
                metal::float4 _e267 = sum0_;
                sum0_ = metal::fma(_e261, _e266, _e267);
                metal::float4 _e273 = x_values(first_token + 1u, col_2 + 28u, x, imm, _buffer_sizes);
                metal::float4 _e274 = sum1_;
                sum1_ = metal::fma(_e261, _e273, _e274);
                metal::float4 _e280 = x_values(first_token + 2u, col_2 + 28u, x, imm, _buffer_sizes);
                metal::float4 _e281 = sum2_;
                sum2_ = metal::fma(_e261, _e280, _e281);
                metal::float4 _e287 = x_values(first_token + 3u, col_2 + 28u, x, imm, _buffer_sizes);
                metal::float4 _e288 = sum3_;
                sum3_ = metal::fma(_e261, _e287, _e288);
            }
        }
    }
    uint lane_of_row = (naga_div(lane, 32u) * 2u) + naga_mod(block, 2u);
    float _e308 = sum0_.x;
    float _e310 = sum0_.y;
    float _e313 = sum0_.z;
    float _e315 = sum0_.w;
    sums.inner[(0u + (row * 16u)) + lane_of_row] = (_e308 + _e310) + (_e313 + _e315);
    float _e326 = sum1_.x;
    float _e328 = sum1_.y;
    float _e331 = sum1_.z;
    float _e333 = sum1_.w;
    sums.inner[(256u + (row * 16u)) + lane_of_row] = (_e326 + _e328) + (_e331 + _e333);
    float _e344 = sum2_.x;
    float _e346 = sum2_.y;
    float _e349 = sum2_.z;
    float _e351 = sum2_.w;
    sums.inner[(512u + (row * 16u)) + lane_of_row] = (_e344 + _e346) + (_e349 + _e351);
    float _e362 = sum3_.x;
    float _e364 = sum3_.y;
    float _e367 = sum3_.z;
    float _e369 = sum3_.w;
    sums.inner[(768u + (row * 16u)) + lane_of_row] = (_e362 + _e364) + (_e367 + _e369);
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    if (lane < 64u) {
        uint token_2 = naga_div(lane, 16u);
        uint out_row = (group.x * 16u) + naga_mod(lane, 16u);
        uint _e384 = imm.rows;
        if (out_row < _e384) {
            uint2 loop_bound_1 = uint2(4294967295u);
            bool loop_init_1 = true;
            while(true) {
                if (metal::all(loop_bound_1 == uint2(0u))) { break; }
                loop_bound_1 -= uint2(loop_bound_1.y == 0u, 1u);
                if (!loop_init_1) {
                    uint _e403 = i;
                    i = _e403 + 1u;
                }
                loop_init_1 = false;
                uint _e390 = i;
                if (_e390 < 16u) {
                } else {
                    break;
                }
                {
                    float _e393 = total;
                    uint _e397 = i;
                    float _e400 = sums.inner[(lane * 16u) + _e397];
                    total = _e393 + _e400;
                }
            }
            uint _e409 = imm.out_stride;
            uint _e413 = imm.out_first;
            float _e417 = total;
            out[(((first_token + token_2) * _e409) + _e413) + out_row] = _e417;
            return;
        } else {
            return;
        }
    } else {
        return;
    }
}

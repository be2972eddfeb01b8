// language: metal3.1
#include <metal_stdlib>
#include <simd/simd.h>

using metal::uint;

struct _mslBufferSizes {
    uint size0;
    uint size1;
    uint size2;
    uint size3;
};

typedef metal::float4 type_2[1];
struct Immediates {
    uint cols;
    uint half_stride;
    float eps;
};
struct type_4 {
    float inner[8];
};

float workgroup_sum(
    float value,
    uint subgroup_1,
    uint lane_of_subgroup_1,
    threadgroup type_4& subgroup_sums
) {
    float total = 0.0;
    uint i = 0u;
    float unnamed = metal::simd_sum(value);
    if (lane_of_subgroup_1 == 0u) {
        subgroup_sums.inner[subgroup_1] = unnamed;
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    uint2 loop_bound = uint2(4294967295u);
    bool loop_init = true;
    while(true) {
        if (metal::all(loop_bound == uint2(0u))) { break; }
        loop_bound -= uint2(loop_bound.y == 0u, 1u);
        if (!loop_init) {
            uint _e22 = i;
            i = _e22 + 1u;
        }
        loop_init = false;
        uint _e12 = i;
        if (_e12 < 8u) {
        } else {
            break;
        }
        {
            float _e15 = total;
            uint _e17 = i;
            float _e19 = subgroup_sums.inner[_e17];
            total = _e15 + _e19;
        }
    }
    float _e24 = total;
    return _e24;
}

uint half_word(
    float a,
    float b
) {
    return as_type<uint>(half2(metal::clamp(metal::float2(a, b) * 0.0625, metal::float2(-65504.0), metal::float2(65504.0))));
}
uint naga_div(uint lhs, uint rhs) {
    return lhs / metal::select(rhs, 1u, rhs == 0u);
}


struct main_Input {
};
[[max_total_threads_per_threadgroup(256)]] kernel void main_(
  metal::uint3 group [[threadgroup_position_in_grid]]
, uint lane [[thread_index_in_threadgroup]]
, uint subgroup [[simdgroup_index_in_threadgroup]]
, uint lane_of_subgroup [[thread_index_in_simdgroup]]
, device type_2& x [[user(fake0)]]
, device type_2 const& weight [[user(fake0)]]
, device type_2& out [[user(fake0)]]
, device type_2 const& delta [[user(fake0)]]
, constant Immediates& imm [[user(fake0)]]
, threadgroup type_4& subgroup_sums
, constant _mslBufferSizes& _buffer_sizes [[user(fake0)]]
) {
    if (lane == 0u) {
        subgroup_sums = {};
    }
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
    metal::float4 value0_ = metal::float4(0.0);
    metal::float4 scale0_ = metal::float4(0.0);
    metal::float4 value1_ = metal::float4(0.0);
    metal::float4 scale1_ = metal::float4(0.0);
    metal::float4 value2_ = metal::float4(0.0);
    metal::float4 scale2_ = metal::float4(0.0);
    metal::float4 value3_ = metal::float4(0.0);
    metal::float4 scale3_ = metal::float4(0.0);
    metal::float4 squares = metal::float4(0.0);
    uint _e6 = imm.cols;
    uint vectors = naga_div(_e6, 4u);
    uint first = group.x * vectors;
    bool is_in0_ = (lane + 0u) < vectors;
    if (is_in0_) {
        metal::float4 _e25 = x[(first + lane) + 0u];
        value0_ = _e25;
        metal::float4 _e30 = weight[lane + 0u];
        scale0_ = _e30;
        metal::float4 _e31 = value0_;
        metal::float4 _e37 = delta[(first + lane) + 0u];
        value0_ = _e31 + _e37;
    }
    bool is_in1_ = (lane + 256u) < vectors;
    if (is_in1_) {
        metal::float4 _e53 = x[(first + lane) + 256u];
        value1_ = _e53;
        metal::float4 _e58 = weight[lane + 256u];
        scale1_ = _e58;
        metal::float4 _e59 = value1_;
        metal::float4 _e65 = delta[(first + lane) + 256u];
        value1_ = _e59 + _e65;
    }
    bool is_in2_ = (lane + 512u) < vectors;
    if (is_in2_) {
        metal::float4 _e81 = x[(first + lane) + 512u];
        value2_ = _e81;
        metal::float4 _e86 = weight[lane + 512u];
        scale2_ = _e86;
        metal::float4 _e87 = value2_;
        metal::float4 _e93 = delta[(first + lane) + 512u];
        value2_ = _e87 + _e93;
    }
    bool is_in3_ = (lane + 768u) < vectors;
    if (is_in3_) {
        metal::float4 _e109 = x[(first + lane) + 768u];
        value3_ = _e109;
        metal::float4 _e114 = weight[lane + 768u];
        scale3_ = _e114;
        metal::float4 _e115 = value3_;
        metal::float4 _e121 = delta[(first + lane) + 768u];
        value3_ = _e115 + _e121;
    }
    metal::float4 _e126 = value0_;
    metal::float4 _e127 = value0_;
    metal::float4 _e128 = squares;
    squares = metal::fma(_e126, _e127, _e128);
    metal::float4 _e130 = value1_;
    metal::float4 _e131 = value1_;
    metal::float4 _e132 = squares;
    squares = metal::fma(_e130, _e131, _e132);
    metal::float4 _e134 = value2_;
    metal::float4 _e135 = value2_;
    metal::float4 _e136 = squares;
    squares = metal::fma(_e134, _e135, _e136);
    metal::float4 _e138 = value3_;
    metal::float4 _e139 = value3_;
    metal::float4 _e140 = squares;
    squares = metal::fma(_e138, _e139, _e140);
    float _e143 = squares.x;
    float _e145 = squares.y;
    float _e148 = squares.z;
    float _e150 = squares.w;
    float of_lane = (_e143 + _e145) + (_e148 + _e150);
    float _e153 = workgroup_sum(of_lane, subgroup, lane_of_subgroup, subgroup_sums);
    uint _e156 = imm.cols;
    float _e161 = imm.eps;
    float scale = 1.0 / metal::sqrt((_e153 / static_cast<float>(_e156)) + _e161);
    if (is_in0_) {
        uint vector = lane + 0u;
        metal::float4 _e171 = value0_;
        x[first + vector] = _e171;
        metal::float4 _e172 = value0_;
        metal::float4 _e174 = scale0_;
        metal::float4 normed = (_e172 * scale) * _e174;
        out[first + vector] = normed;
    }
    if (is_in1_) {
        uint vector_1 = lane + 256u;
        metal::float4 _e184 = value1_;
        x[first + vector_1] = _e184;
        metal::float4 _e185 = value1_;
        metal::float4 _e187 = scale1_;
        metal::float4 normed_1 = (_e185 * scale) * _e187;
        out[first + vector_1] = normed_1;
    }
    if (is_in2_) {
        uint vector_2 = lane + 512u;
        metal::float4 _e197 = value2_;
        x[first + vector_2] = _e197;
        metal::float4 _e198 = value2_;
        metal::float4 _e200 = scale2_;
        metal::float4 normed_2 = (_e198 * scale) * _e200;
        out[first + vector_2] = normed_2;
    }
    if (is_in3_) {
        uint vector_3 = lane + 768u;
        metal::float4 _e210 = value3_;
        x[first + vector_3] = _e210;
        metal::float4 _e211 = value3_;
        metal::float4 _e213 = scale3_;
        metal::float4 normed_3 = (_e211 * scale) * _e213;
        out[first + vector_3] = normed_3;
        return;
    } else {
        return;
    }
}

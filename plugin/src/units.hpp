// Constants and units of several sources.
#pragma once

#include <cmath>

namespace tonewood {

inline const double pi = std::acos(-1.0);

inline double power_of_db(double db) { return std::exp(db * (std::log(10.0) / 10)); }

}  // namespace tonewood

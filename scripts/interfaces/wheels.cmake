# For interface packages in environments made of pip wheels. Built by scripts/setup.sh, never on a robot, where ROS 2
# brings these packages itself. Include this after find_package(rosidl_default_generators).
#
# The wheels' generator targets carry include directories of the machine that built them, and CMake
# refuses a target whose include directory does not exist.
# A service needs service_msgs; rosidl would look for it only after this.
find_package(service_msgs QUIET)
foreach(package builtin_interfaces geometry_msgs service_msgs std_msgs)
  set(target ${package}::${package}__rosidl_generator_py)
  if(TARGET ${target})
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "")
  endif()
endforeach()

vrrp_instance VI_8 {
}

set "web" {
  type          = "port"
  elements_file = "../lists/ports.txt"
}

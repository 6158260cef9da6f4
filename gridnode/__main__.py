from gridnode.cli import main

main()

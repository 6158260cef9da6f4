"""What programs that `import gridcore` rely on, whatever engine runs their calls."""

declare module "*.css";
declare module "quill-cursors/css";
